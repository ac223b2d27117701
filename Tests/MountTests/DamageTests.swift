import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// 7: a source that is no longer what was imported, and records that cannot be believed.
    @Suite struct Damage {
        private static let size = 3 << 20

        enum Change: String, CaseIterable {
            case vanished = "rm \"$1\""
            case shrank = "truncate -s -100 \"$1\""
            case emptied = "truncate -s 0 \"$1\""
            case grew = "echo more >>\"$1\""
            case changed = "printf x | dd of=\"$1\" bs=1 seek=100 conv=notrunc status=none"
            case replaced = "cp \"$1\" \"$1.new\"; mv \"$1.new\" \"$1\""
            case directory = "rm \"$1\"; mkdir \"$1\""
        }

        @Test(
            "A source file that is not what was imported gives EIO with the cause in the state, never other bytes",
            arguments: Change.allCases, [1000, size])
        func source(change: Change, size: Int) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: size)
                try Pattern.write(mirror.remote("other"), size: 1000)
            } _: { mirror throws in
                if size > Trees.fetchUnit { _ = try File.bytes(mirror.at("file"), 0..<1) }
                let present = try mirror.state("file").presentBytes
                // A change within the clock's tick would keep the times that are the version.
                usleep(20_000)
                try shell(change.rawValue, [mirror.remote("file")])
                #expect(File.readError(mirror.at("file")) == EIO)
                let state = try mirror.state("file")
                #expect(state.lastError?.isEmpty == false)
                #expect(state.presentBytes < size)
                if present > 0 { #expect(try File.bytes(mirror.at("file"), 0..<10) == Pattern.bytes(0..<10)) }
                #expect(try File.sameContent(mirror.at("other"), mirror.remote("other")))
                #expect(try mirror.log.contains("file") && mirror.status().counter("errors") > 0)
            }
        }

        @Test("A source file that changes while it is fetched never gives a mixture")
        func changeMeanwhile() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 8 << 20, seed: 1)
            } _: { mirror throws in
                try mirror.start(["--fill", "open"], remote: "bandwidth=8M")
                let reader = try Child(["cat", mirror.at("file")])
                try until("the fetch to be under way") { try mirror.status().counter("granulesFetched") > 2 }
                try Pattern.write(mirror.remote("file"), size: 8 << 20, seed: 2)
                #expect(try reader.wait(seconds: 30).code == 1)
                try mirror.stop()
                for range in try mirror.state("file", inLower: true).ranges {
                    let bytes = try File.bytes(mirror.tree + "/file", range[0]..<range[1])
                    #expect(
                        bytes == Pattern.bytes(range[0]..<range[1], seed: 1), "only the recorded version is present")
                }
            }
        }

        @Test("A source whose files are stale, or that has errors, gives EIO with the cause, and nothing is recorded")
        func failingSource() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                for (error, cause) in [("ESTALE", "Stale file handle"), ("EIO", "Input/output error")] {
                    // All but the first of its reads.
                    try mirror.start(["--fill", "read"], failpoints: "source.read:\(error):2")
                    #expect(File.readError(mirror.at("file")) == EIO)
                    let state = try mirror.state("file")
                    #expect(state.lastError?.contains(cause) == true && state.presentBytes < Self.size)
                    try mirror.killDaemon()
                    for range in try mirror.state("file", inLower: true).ranges {
                        let bytes = try File.bytes(mirror.tree + "/file", range[0]..<range[1])
                        #expect(bytes == Pattern.bytes(range[0]..<range[1]))
                    }
                }
                try mirror.start()
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test(
            "A remote that answers too short or too long is EIO with the cause, and right when it is right again",
            arguments: ["short", "long"], ["open", "read"])
        func wrongLength(how: String, fill: String) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                for name in ["small", "large"] {
                    try Pattern.write(mirror.remote(name), size: name == "small" ? 1000 : Self.size)
                }
            } _: { mirror throws in
                try File.put("", mirror.spoilPath(how))
                for name in ["small", "large"] {
                    #expect(File.readError(mirror.at(name)) == EIO)
                    #expect(try mirror.state(name).lastError?.contains("the remote sent") == true)
                    for range in try mirror.state(name).ranges where fill == "read" {
                        let bytes = try File.bytes(mirror.at(name), range[0]..<range[1])
                        #expect(bytes == Pattern.bytes(range[0]..<range[1]))
                    }
                }
                #expect(try mirror.status().counter("retries") >= 6)
                unlink(mirror.spoilPath(how))
                for name in ["small", "large"] {
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
            }
        }

        /// A mount that was stopped with `file` partly there, and `dirty` changed as well.
        private func withStopped(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size, seed: 1)
                try Pattern.write(mirror.remote("dirty"), size: Self.size, seed: 2)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("file"), 0..<1)
                try File.open(mirror.at("dirty"), O_WRONLY).put([1, 2, 3], at: 1_500_000)
                try mirror.stop()
                try body(mirror)
            }
        }

        /// Right after what was damaged, or an error that is told; never wrong bytes.
        private func checkAfterwards(_ mirror: Mirror) throws {
            try mirror.start(["--fill", "read"])
            let error = File.readError(mirror.at("file"))
            if error == 0 {
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            } else {
                #expect(error == EIO)
                #expect(try mirror.state("file").lastError?.isEmpty == false)
            }
            let dirtyError = File.readError(mirror.at("dirty"))
            if dirtyError == 0 {
                var expected = Pattern.bytes(0..<Self.size, seed: 2)
                expected.replaceSubrange(1_500_000..<1_500_003, with: [1, 2, 3])
                #expect(try File.bytes(mirror.at("dirty")) == expected)
            } else {
                #expect(dirtyError == EIO)
                #expect(try mirror.state("dirty").lastError?.isEmpty == false)
            }
        }

        private func residencyMaps(_ mirror: Mirror) throws -> [String] {
            try shell(
                "find .passhsm -path .passhsm/tree -prune -o -type f -size +0 ! -name '*config*' ! -name '*.json' -print",
                in: mirror.lower
            )
            .split(separator: "\n").map { mirror.lower + "/" + $0 }
        }

        enum Spoil: String, CaseIterable {
            case flip =
                "printf '\\\\xff' | dd of=\"$1\" bs=1 seek=$(($(stat -c %s \"$1\") / 2)) conv=notrunc status=none"
            case allOnes =
                "n=$(stat -c %s \"$1\"); head -c $n /dev/zero | tr '\\\\0' '\\\\377' | dd of=\"$1\" conv=notrunc status=none"
            case zero = "n=$(stat -c %s \"$1\"); dd if=/dev/zero of=\"$1\" bs=$n count=1 conv=notrunc status=none"
            case cut = "truncate -s $(($(stat -c %s \"$1\") / 2)) \"$1\""
            case empty = "truncate -s 0 \"$1\""
            case gone = "rm \"$1\""
        }

        @Test("A corrupt residency map is fetched anew, or an error where the file is dirty", arguments: Spoil.allCases)
        func residencyMap(spoil: Spoil) throws {
            try withStopped { mirror throws in
                let maps = try residencyMaps(mirror)
                #expect(maps.count >= 2, "a map for each of two partial files: \(maps)")
                for map in maps { try shell(spoil.rawValue.replacing("\\\\", with: "\\"), [map]) }
                try checkAfterwards(mirror)
            }
        }

        @Test("Residency maps that were swapped are noticed")
        func swapped() throws {
            try withStopped { mirror throws in
                let maps = try residencyMaps(mirror)
                try #require(maps.count >= 2)
                try shell("mv \"$1\" \"$1.x\"; mv \"$2\" \"$1\"; mv \"$1.x\" \"$2\"", [maps[0], maps[1]])
                try checkAfterwards(mirror)
            }
        }

        @Test("A corrupt record is never taken for the truth", arguments: [0, 1, 8, 20, 40, 60, -1])
        func record(position: Int) throws {
            try withStopped { mirror throws in
                for name in ["file", "dirty"] {
                    let path = mirror.tree + "/" + name
                    let attribute = "trusted.passhsm"
                    var value = try ExtendedAttributes.value(attribute, of: path)
                    let index = position < 0 ? value.count - 1 : min(position, value.count - 1)
                    value[index] ^= 0x55
                    try set(attribute, path, value)
                }
                try checkAfterwards(mirror)
            }
        }

        @Test("A record that was cut off is never taken for the truth")
        func shortRecord() throws {
            try withStopped { mirror throws in
                for name in ["file", "dirty"] {
                    let path = mirror.tree + "/" + name
                    try set(
                        "trusted.passhsm", path, Array(ExtendedAttributes.value("trusted.passhsm", of: path).prefix(7)))
                }
                try checkAfterwards(mirror)
            }
        }

        private func set(_ name: String, _ path: String, _ value: [UInt8]) throws {
            // As in Descriptor.put: no typed closure for a function that throws any.
            var failure: Errno?
            value.withUnsafeBytes { buffer in
                do throws(Errno) { try ExtendedAttributes.set(name, of: path, to: buffer) } catch { failure = error }
            }
            if let failure { throw failure }
        }
    }
}
