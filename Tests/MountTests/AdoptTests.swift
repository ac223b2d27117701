import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// A lower directory that is copied, moved or restored, and `passhsm adopt` of it.
    @Suite struct Adopt {
        enum Copy: String, CaseIterable {
            case cp, rsync, tar, snapshot

            var disk: Disk.Kind { self == .snapshot ? .btrfs : .ext4 }

            /// `$1` is the old lower directory, `$2` the new one, which is not there yet.
            var script: String {
                switch self {
                case .cp: "cp -a \"$1\" \"$2\""
                case .rsync: "rsync -aHAX \"$1/\" \"$2/\""
                case .tar:
                    """
                    mkdir "$2" && tar -C "$1" --xattrs --xattrs-include='*' -cf - . |
                        tar -C "$2" --xattrs --xattrs-include='*' -xf -
                    """
                case .snapshot: "btrfs subvolume snapshot \"$1\" \"$2\" >/dev/null"
                }
            }
        }

        private static let size = 3 << 20
        private static let names = ["offline", "complete", "partial", "changed", "written", "cut", "small", "d/inside"]
        /// State and flags of each of them, and of its bytes that are there.
        private static let states = [
            "offline": "offline", "complete": "dual", "partial": "partial", "changed": "dual dirty",
            "written": "partial dirty", "cut": "partial dirty", "small": "dual", "d/inside": "offline",
        ]

        /// Gives `body` a mirror that was used, what each file has to be, and the copy of its lower directory, by a mirror.
        private func withCopy(
            _ copy: Copy, _ body: (_ old: Mirror, _ new: Mirror, _ content: [String: [UInt8]]) throws -> Void
        ) throws {
            try withScratch { scratch in
                let disk = try Disk(copy.disk, at: scratch.path + "/disk")
                defer { disk.remove() }
                let other = copy == .snapshot ? nil : try Disk(.ext4, at: scratch.path + "/other")
                defer { other?.remove() }
                if copy == .snapshot { try shell("btrfs subvolume create \"$1/lower\" >/dev/null", [disk.path]) }
                let old = try Mirror(scratch, apart: true, lower: disk.path + "/lower")
                defer { _ = old.cleanUp() }
                let new = try Mirror(scratch, apart: true, lower: (other?.path ?? disk.path) + "/copy")
                defer { _ = new.cleanUp() }
                rmdir(new.lower)
                let content = try use(old)
                try shell(copy.script, [old.lower, new.lower])
                try body(old, new, content)
                if new.pid != 0 { try new.stop() }
            }
        }

        private func use(_ mirror: Mirror) throws -> [String: [UInt8]] {
            mkdir(mirror.remote("d"), 0o755)
            var content: [String: [UInt8]] = [:]
            for (index, name) in Self.names.enumerated() {
                let size = name == "small" ? 100 : Self.size + index * 1000
                content[name] = Pattern.bytes(0..<size, seed: index)
                try Pattern.write(mirror.remote(name), size: size, seed: index)
            }
            link(mirror.remote("complete"), mirror.remote("d/linked"))
            symlink("inside", mirror.remote("d/symlink"))
            content["d/linked"] = content["complete"]
            try shell("touch -d 2020-01-01 $(find . -type f)", in: mirror.source)
            try mirror.importSource()
            try mirror.start(["--fill", "read"])
            for name in ["complete", "changed", "small"] { _ = try File.bytes(mirror.at(name)) }
            _ = try File.bytes(mirror.at("partial"), 2_000_000..<2_000_001)
            for (name, offset) in [("changed", 5), ("written", 1_500_000), ("cut", 100_000)] {
                let bytes = Pattern.bytes(0..<150_000, seed: 99)
                let file = try File.open(mirror.at(name), O_WRONLY)
                try file.put(bytes, at: offset)
                content[name]?.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            }
            _ = try File.bytes(mirror.at("written"), 100..<101)
            for size in [1_000_001, 1_300_000] {
                truncate(mirror.at("cut"), size)
                let rest = [UInt8](repeating: 0, count: max(0, size - 1_000_001))
                content["cut"] = Array(try #require(content["cut"]).prefix(1_000_001)) + rest
            }
            try mirror.stop()
            return content
        }

        private func adopt(_ mirror: Mirror, _ arguments: String..., failpoints: String = "") throws -> Output {
            try run(
                [Machine.program, "adopt", mirror.lower] + arguments,
                environment: ["PASSHSM_FAILPOINT": failpoints])
        }

        private func check(_ mirror: Mirror, _ content: [String: [UInt8]], _ states: [String: String] = states) throws {
            for (name, state) in states {
                let found = try mirror.state(name, inLower: true)
                #expect(([found.state] + found.flags).joined(separator: " ") == state, "\(name)")
            }
            try mirror.start(["--fill", "read"])
            for (name, bytes) in content {
                let found = try File.bytes(mirror.at(name))
                #expect(found.count == bytes.count && found == bytes, "\(name)")
            }
            try mirror.stop()
            #expect(try passhsm("verify", mirror.lower).code == 0)
        }

        @Test(
            "Every byte of a copy is right once it was adopted, and changes are still there", arguments: Copy.allCases)
        func copied(copy: Copy) throws {
            try withCopy(copy) { old, new, content in
                let refused = try run([Machine.program, "mount", new.lower, new.mount])
                #expect(refused.code == 1 && refused.err.contains("passhsm adopt \(new.lower)"), "\(refused)")
                let output = try adopt(new)
                #expect(output.code == 0, "\(output)")
                #expect(
                    output.out.contains("2 complete, 3 with local changes, 1 partial, 2 offline (0 had content"),
                    "\(output)")
                let partial = try new.state("partial", inLower: true)
                #expect(try partial.ranges == old.state("partial", inLower: true).ranges && partial.presentBytes > 0)
                try check(new, content)
                try check(old, content)
            }
        }

        @Test("An adoption that was killed at any file goes on where it was")
        func killed() throws {
            try withCopy(.rsync) { _, new, content in
                for file in 1...8 {
                    let output = try adopt(new, failpoints: "adopt.file:kill:2")
                    if output.code == 0 { break }
                    #expect(file < 8 && output.code != 1, "\(output)")
                }
                #expect(try adopt(new).code == 0)
                try check(new, content)
            }
        }

        @Test("What is not proven is fetched again, and what only this file may have is left")
        func damaged() throws {
            try withCopy(.cp) { _, new, content in
                try shell(
                    """
                    printf 'damaged' | dd of=complete bs=1 seek=5000 conv=notrunc status=none && touch -d 2020-01-01 complete
                    printf 'damaged' | dd of=partial bs=1 seek=2000000 conv=notrunc status=none && touch -d 2020-01-01 partial
                    printf 'changed' | dd of=small bs=1 seek=3 conv=notrunc status=none
                    """, in: new.tree)
                let output = try adopt(new)
                #expect(output.code == 1 && output.err.contains("small: left as it is: "), "\(output)")
                #expect(
                    output.out.contains("0 complete, 3 with local changes, 0 partial, 4 offline (2 had"), "\(output)")
                #expect(try File.bytes(new.tree + "/small", 3..<10) == Array("changed".utf8), "it is not touched")
                let again = try adopt(new, "--refetch-changed")
                #expect(again.code == 0, "\(again)")
                var states = Self.states
                for name in ["complete", "partial", "small"] { states[name] = "offline" }
                try check(new, content, states)
            }
        }

        @Test("Without its map a file with local changes is left, and a clean one fetched again")
        func missingMaps() throws {
            try withCopy(.cp) { _, new, content in
                try shell("rm \"$1\"/.passhsm/partial/*", [new.lower])
                let output = try adopt(new)
                #expect(
                    output.code == 1 && output.out.contains("1 with local changes, 0 partial, 3 offline"), "\(output)")
                for name in ["written", "cut"] { #expect(output.err.contains("\(name): left as it is"), "\(output)") }
                try new.start(["--fill", "read"])
                for name in ["written", "cut"] { #expect(File.readError(new.at(name)) == EIO) }
                for (name, bytes) in content where !["written", "cut"].contains(name) {
                    #expect(try File.bytes(new.at(name)) == bytes, "\(name)")
                }
            }
        }

        @Test("A copy without extended attributes, or with other owners, is refused, and told why")
        func withoutAttributes() throws {
            try withCopy(.cp) { old, new, _ in
                try shell("rm -r \"$2\" && rsync -aH \"$1/\" \"$2/\"", [old.lower, new.lower])
                for arguments in [
                    ["mount", new.lower, new.mount], ["import", new.source, new.lower], ["adopt", new.lower],
                ] {
                    let output = try run([Machine.program] + arguments)
                    #expect(output.code == 1 && output.err.contains("without its extended attributes"), "\(output)")
                }
                try shell(
                    "rm -r \"$2\" && rsync -aHAX \"$1/\" \"$2/\" && chown 65534 \"$2/.passhsm\"",
                    [old.lower, new.lower])
                let output = try adopt(new)
                #expect(output.code == 1 && output.err.contains("chown"), "\(output)")
            }
        }

        @Test(
            "Copies of single files in a lower directory are adopted too, and an adoption of what is right changes nothing"
        )
        func singleFiles() throws {
            try withCopy(.cp) { old, new, content in
                #expect(try adopt(new).code == 0)
                for name in Self.names where name != "d/inside" {
                    try shell("cp -a \"$1\" \"$1.copy\"", [new.tree + "/" + name])
                }
                let output = try adopt(new)
                #expect(output.code == 0 && output.out.contains("9 needed nothing"), "\(output)")
                var all = content
                var states = Self.states
                for name in Self.names where name != "d/inside" {
                    all[name + ".copy"] = content[name]
                    states[name + ".copy"] = Self.states[name]
                }
                try check(new, all, states)
                let idle = try adopt(new)
                #expect(idle.code == 0 && idle.out.contains("0 complete, 0 with local changes, 0 partial, 0 offline"))
            }
        }
    }
}
