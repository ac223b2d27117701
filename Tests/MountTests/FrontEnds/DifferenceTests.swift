import Foundation
import Glibc
import HSMSystem
import Testing

extension MountTests.FrontEnds {
    /// Where the fanotify front end differs from FUSE: each test is a row of SEMANTICS.md.
    @Suite struct Differences {
        private func withFiles(_ arguments: [String], _ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: FrontEnd.fanotify.arguments + arguments) { mirror throws in
                try Scenario(name: "") { _, _ throws in }.prepare(mirror)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        /// A lower directory that is the top of a file system of its own.
        private func withDisk(
            _ kind: Disk.Kind, _ frontEnd: String, _ body: (Mirror) throws -> Void
        ) throws {
            try withScratch { scratch throws in
                let disk = try Disk(kind, at: scratch.path + "/lower")
                defer { disk.remove() }
                let mirror = try Mirror(scratch, apart: true)
                do {
                    try Scenario(name: "") { _, _ throws in }.prepare(mirror)
                    try mirror.importSource()
                    try mirror.start(["--frontend", frontEnd])
                    try body(mirror)
                    if mirror.pid != 0 { try mirror.stop() }
                } catch {
                    _ = mirror.cleanUp()
                    throw error
                }
                try disk.unmount()
            }
        }

        @Test("With --fill read, who looks for holes takes what is not there for zeros, and the mount warns of it")
        func danger() throws {
            try withFiles(["--fill", "read"]) { mirror in
                #expect(mirror.log.contains("WARNING: with --fill read"))
                let copy = mirror.scratch.path + "/copy"
                try shell("cp --sparse=always \"$1\" \"$2\"", [mirror.at("a"), copy])
                #expect(try File.bytes(copy) == [UInt8](repeating: 0, count: Scenario.size))
                #expect(try mirror.status().counter("fetches") == 0)
                // Who reads it gets it.
                #expect(try mirror.content("a") == Scenario.content(0))
            }
        }

        @Test("A copy of the mount in another mount namespace shows holes; bind mounts of it are refused")
        func namespace() throws {
            try withFiles([]) { mirror in
                #expect(mirror.log.contains("not its copies in other mount namespaces"))
                let script = "cmp -n 4096 \"$1\" /dev/zero"
                let other = try run(["unshare", "-m", "bash", "-c", script, "bash", mirror.at("a")])
                #expect(other.code == 0, "no other namespace would be seen to be unprotected: \(other)")
                let folder = mirror.scratch.path + "/bind"
                mkdir(folder, 0o755)
                #expect(try run(["mount", "--bind", mirror.mount, folder]).code != 0)
                #expect(try mirror.content("a") == Scenario.content(0))
            }
        }

        @Test(
            "Where the lower directory is the top of its file system, no way to it shows holes, and auto takes fanotify",
            arguments: Disk.Kind.allCases)
        func wholeFileSystem(kind: Disk.Kind) throws {
            try withDisk(kind, "auto") { mirror in
                #expect(mirror.log.contains("(fanotify, the whole file system is marked)"))
                let other = try run(["unshare", "-m", "cmp", mirror.at("a"), mirror.remote("a")])
                #expect(other.code == 0, "\(other)")
                let behind = try run(["cmp", mirror.lower + "/b", mirror.remote("b")])
                #expect(behind.code == 0, "\(behind)")
                try mirror.await("a", "complete") { $0.state == "dual" && $0.flags.isEmpty }
                let output = try passhsm("release", mirror.at("a"))
                #expect(output.code == 0, "\(output)")
                #expect(try mirror.state("a").state == "offline")
                #expect(try mirror.content("a") == Scenario.content(0))
                try File.open(mirror.at("c"), O_WRONLY).put([5], at: 70_000)
                #expect(try mirror.state("c").flags == ["dirty"])
                var expected = Scenario.content(2)
                expected[70_000] = 5
                // Another daemon takes the whole file system over too.
                try mirror.await("b", "complete") { $0.state == "dual" && $0.flags.isEmpty }
                let again = try passhsm("release", mirror.at("b"))
                #expect(again.code == 0, "\(again)")
                try mirror.hold()
                let reader = try Child(["cmp", mirror.at("b"), mirror.remote("b")])
                try until("a waiting reader") { try mirror.status().waiting >= 1 }
                try mirror.killDaemon(detaching: false)
                mirror.letGo()
                try mirror.start(["--frontend", "auto"])
                let compared = try reader.wait(seconds: 30)
                #expect(compared.code == 0, "\(compared)\(mirror.log)")
                #expect(try mirror.content("c") == expected)
            }
        }

        @Test("auto takes FUSE, and says why, where copies of the mount would be unprotected")
        func auto() throws {
            try withMirror(mounting: ["--frontend", "auto"]) { mirror throws in
                try File.put("x", mirror.remote("file"))
            } _: { mirror throws in
                #expect(
                    mirror.log.contains("(fuse, ") && mirror.log.contains("not fanotify: the lower directory is a part")
                )
            }
        }

        @Test("A file system without pre-content events is refused, and doctor says so")
        func unable() throws {
            try withScratch { scratch throws in
                let mirror = try Mirror(scratch)
                try shell("mount -t tmpfs none \"$1\"", [mirror.lower])
                defer { umount2(mirror.lower, Int32(MNT_DETACH)) }
                try File.put("x", mirror.remote("file"))
                try mirror.importSource()
                let output = try passhsm("mount", mirror.lower, mirror.lower, "--frontend", "fanotify", seconds: 30)
                #expect(output.code == 1 && output.err.contains("no pre-content events (tmpfs)"), "\(output)")
                let doctor = try passhsm("doctor", mirror.lower)
                #expect(doctor.out.contains("no pre-content events (tmpfs)"), "\(doctor.out)")
            }
        }

        @Test("Reads of a complete file raise no events; each open raises one")
        func warm() throws {
            try withFiles([]) { mirror in
                #expect(try mirror.content("a") == Scenario.content(0))
                try mirror.await("a", "complete") { $0.state == "dual" }
                usleep(300_000)
                let file = try File.open(mirror.at("a"))
                let before = try mirror.requests()
                for offset in stride(from: 0, to: Scenario.size, by: 4096) { _ = try file.bytes(offset..<offset + 10) }
                for _ in 0..<5 { _ = try File.open(mirror.at("a")) }
                let after = try mirror.requests()
                #expect(after["access"] == before["access"])
                // `state` and `status` open files of the store, too.
                #expect((after["open"] ?? 0) - (before["open"] ?? 0) == 5)
            }
        }

        @Test("Options that only FUSE can have are refused")
        func options() throws {
            for option in [["--cache", "none"], ["--no-passthrough"], ["--on-change", "refetch"]] {
                let output = try run(
                    [Machine.program, "mount", "/tmp", "/tmp", "--frontend", "fanotify"] + option, seconds: 30)
                #expect(output.code == 64 && output.err.contains("for FUSE"), "\(output)")
            }
        }
    }

    @Test("For one trace of accesses both front ends fetch the same granules")
    func parity() throws {
        let size = 24 << 20
        var results: [(ranges: [[Int]], fetched: Int, counters: [String: Int])] = []
        for frontEnd in FrontEnd.allCases {
            try withMirror(mounting: frontEnd.arguments + ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: size)
            } _: { mirror throws in
                var file: Descriptor? = try File.open(mirror.at("file"))
                // The kernel's own read-ahead asks FUSE for more, and raises no events: scattered accesses have none.
                posix_fadvise(file?.raw ?? -1, 0, 0, POSIX_FADV_RANDOM)
                var random = SplitMix64(state: 7)
                for _ in 0..<40 {
                    let offset = Int(random.next() % UInt64(size / 4096)) * 4096
                    let count = [100, 4096, 70_000].randomElement(using: &random) ?? 1
                    let range = offset..<min(size, offset + count)
                    #expect(try file?.bytes(range) == Pattern.bytes(range))
                }
                try until("no more fetches", seconds: 10) {
                    let before = try mirror.status().counter("granulesFetched")
                    usleep(300_000)
                    return try mirror.status().counter("granulesFetched") == before
                }
                let counters = try mirror.status().counters
                file = nil
                try mirror.stop()
                let ranges = try mirror.state("file", inLower: true).ranges
                results.append((ranges, counters["granulesFetched"] ?? -1, counters))
            }
        }
        for name in results[0].counters.keys.sorted() {
            print(
                "PASSHSM: \(name): fuse \(results[0].counters[name] ?? 0), fanotify \(results[1].counters[name] ?? 0)")
        }
        #expect(results[0].ranges == results[1].ranges)
        #expect(results[0].fetched == results[1].fetched)
        #expect(results[0].fetched < size / Trees.granule, "all of it was fetched: nothing was compared")
    }
}
