import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Change times, by which backup programs find what has changed: fills and releases do not show, by whichever daemon.
    @Suite struct ChangeTimes {
        private static let size = 2 << 20
        private static let names = ["whole", "half", "given", "opened", "pinned", "never"]

        private func withFiles(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for (index, name) in Self.names.enumerated() {
                    try Pattern.write(mirror.remote(name), size: Self.size + index, seed: index)
                }
                try shell("touch -d 2020-01-01 *", in: mirror.source)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        private func remount(_ mirror: Mirror) throws {
            try mirror.stop()
            try mirror.start(["--fill", "read"])
        }

        private func shown(_ mirror: Mirror, _ name: String) throws -> [Int] {
            let time = try File.stat(mirror.at(name)).st_ctim
            return [time.tv_sec, time.tv_nsec]
        }

        @Test("Reading, releasing, pinning and opening for writing show no other change time, nor do later daemons")
        func ours() throws {
            try withFiles { mirror throws in
                let first = try Self.names.map { try shown(mirror, $0) }
                for _ in 0..<3 {
                    for name in ["whole", "given", "opened", "pinned"] { _ = try File.bytes(mirror.at(name)) }
                    _ = try File.bytes(mirror.at("half"), 0..<300_000)
                    usleep(300_000)
                    _ = try File.open(mirror.at("opened"), O_RDWR)
                    try until("the mark to be taken back") { try mirror.state("opened").flags.isEmpty }
                    #expect(try passhsm("release", mirror.at("given")).code == 0)
                    #expect(try passhsm("pin", mirror.at("pinned")).code == 0)
                    #expect(try Self.names.map { try shown(mirror, $0) } == first)
                    try remount(mirror)
                    #expect(try Self.names.map { try shown(mirror, $0) } == first)
                    #expect(try passhsm("unpin", mirror.at("pinned")).code == 0)
                }
                #expect(try mirror.state("given").state == "offline" && mirror.state("whole").state == "dual")
            }
        }

        @Test(
            "A user's change moves it, also right after the daemon's work, and is what the next daemon shows",
            arguments: ["chmod 600", "setfattr -n user.a -v b", "chown 1:1", "touch -a", "ln -T \"$1\" \"$1.link\"; :"])
        func users(change: String) throws {
            try withFiles { mirror throws in
                for name in ["whole", "given", "half"] {
                    let before = try shown(mirror, name)
                    _ = try File.bytes(mirror.at(name), 0..<(name == "half" ? 100_000 : Self.size + 9))
                    if name == "given" {
                        try until("completion") { try mirror.state(name).state == "dual" }
                        #expect(try passhsm("release", mirror.at(name)).code == 0)
                    }
                    try shell("\(change) \"$1\"", [mirror.at(name)])
                    let after = try shown(mirror, name)
                    #expect(after[0] * 1_000_000_000 + after[1] > before[0] * 1_000_000_000 + before[1], "\(name)")
                    usleep(300_000)
                    try remount(mirror)
                    let later = try shown(mirror, name)
                    // The kernel's own time of the change may be some milliseconds from the daemon's.
                    #expect(abs((later[0] - after[0]) * 1_000_000_000 + later[1] - after[1]) < 100_000_000, "\(name)")
                }
            }
        }

        private func backUp(_ mirror: Mirror, _ program: String) throws -> (unchanged: Int, changed: Int) {
            let environment = [
                "RESTIC_PASSWORD": "x", "HOME": mirror.scratch.path, "BORG_BASE_DIR": mirror.scratch.path,
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            ]
            func text(of arguments: [String]) throws -> String {
                let output = try run(arguments, environment: environment)
                guard output.code == 0 else { throw Failure("\(output)") }
                return output.out + output.err
            }
            let repository = "\(mirror.scratch.path)/repository"
            if program == "restic" {
                let base = ["restic", "-q", "-r", repository, "--no-cache"]
                if access(repository, F_OK) != 0 { _ = try text(of: base + ["init"]) }
                let report = try text(of: ["restic", "-r", repository, "--no-cache", "backup", "--json", mirror.mount])
                func count(_ name: String) -> Int {
                    let value = report.components(separatedBy: "\"\(name)\":").last ?? ""
                    return Int(value.prefix { $0.isNumber }) ?? -1
                }
                return (count("files_unmodified"), count("files_new") + count("files_changed"))
            }
            if access(repository, F_OK) != 0 { _ = try text(of: ["borg", "init", "-e", "none", repository]) }
            let name = "\(repository)::\(UInt32.random(in: 0...UInt32.max))"
            let lines = try text(of: ["borg", "create", "--list", "--stats", name, mirror.mount]).split(separator: "\n")
            return (
                lines.count { $0.hasPrefix("U ") }, lines.count { $0.hasPrefix("A ") || $0.hasPrefix("M ") }
            )
        }

        @Test(
            "After a release and a remount a backup finds every file unmodified, and reads none",
            arguments: ["restic", "borg"])
        func backup(program: String) throws {
            try withFiles { mirror throws in
                usleep(50_000)
                // Of the newest file no program believes that it did not change; it is local here.
                try File.put("newest", mirror.at("newest"))
                let first = try backUp(mirror, program)
                #expect(first.unchanged == 0 && first.changed == Self.names.count + 1)
                try until("completion") {
                    try Self.names.allSatisfy { try mirror.state($0).state == "dual" }
                }
                for step in ["release", "remount", "release", "remount"] {
                    if step == "release" {
                        _ = try passhsm("release", "-r", mirror.mount)
                        for name in Self.names { #expect(try mirror.state(name).state == "offline") }
                    } else {
                        try remount(mirror)
                    }
                    let before = try mirror.status().counter("bytesFetched")
                    let again = try backUp(mirror, program)
                    #expect(again.unchanged >= Self.names.count && again.changed <= 1, "\(step): \(again)")
                    #expect(try mirror.status().counter("bytesFetched") == before, "\(step): files were read")
                }
            }
        }
    }
}
