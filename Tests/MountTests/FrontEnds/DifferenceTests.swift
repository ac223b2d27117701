import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.FrontEnds {
    /// Where the fanotify front end differs from FUSE: each test is a row of SEMANTICS.md.
    @Suite struct Differences {
        func withFiles(_ arguments: [String], _ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: FrontEnd.fanotify.arguments + arguments) { mirror throws in
                try Scenario(name: "") { _, _ throws in }.prepare(mirror)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        func withDisk(
            _ kind: Disk.Kind, _ arguments: [String], _ body: (Mirror) throws -> Void
        ) throws {
            try withDiskMirror(kind, prepare: Scenario(name: "") { _, _ throws in }.prepare) { mirror throws in
                try mirror.start(arguments)
                try body(mirror)
            }
        }

        @Test(
            "A copy of the mount in another mount namespace shows holes; bind mounts of it, and overlays, are refused")
        func namespace() throws {
            try withFiles([]) { mirror in
                #expect(mirror.log.contains("not its copies in other mount namespaces"))
                let script = "cmp -n 4096 \"$1\" /dev/zero"
                let other = try run(["unshare", "-m", "bash", "-c", script, "bash", mirror.at("a")])
                #expect(other.code == 0, "no other namespace would be seen to be unprotected: \(other)")
                let folder = mirror.scratch.path + "/bind"
                mkdir(folder, 0o755)
                #expect(try run(["mount", "--bind", mirror.mount, folder]).code != 0)
                let overlay = "lowerdir=\(mirror.mount):\(mirror.source)"
                #expect(try run(["mount", "-t", "overlay", "overlay", "-o", overlay, folder]).code != 0)
                #expect(try mirror.content("a") == Scenario.content(0))
            }
        }

        @Test(
            "Where the lower directory is the top of its file system, no way to it shows holes, and auto takes fanotify",
            arguments: Disk.Kind.allCases)
        func wholeFileSystem(kind: Disk.Kind) throws {
            try withDisk(kind, ["--frontend", "auto"]) { mirror in
                #expect(mirror.log.contains("(fanotify, the whole file system is marked)"))
                let other = try run(["unshare", "-m", "cmp", mirror.at("a"), mirror.remote("a")])
                #expect(other.code == 0, "\(other)")
                let behind = try run(["cmp", mirror.tree + "/b", mirror.remote("b")])
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

        @Test("Where only the mount can be marked it is refused without --allow-holes, and the way out is told")
        func holes() throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("x", mirror.remote("file"))
            } _: { mirror throws in
                let output = try passhsm("mount", mirror.lower, mirror.mount, "--frontend", "fanotify", seconds: 30)
                #expect(output.code == 1 && output.err.contains("--allow-holes"), "\(output)")
                #expect(!mirror.isMounted)
                try mirror.start(["--frontend", "fanotify", "--allow-holes"])
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test(
            "A truncation down and up by its path, with the time put back, is never released",
            arguments: [["truncate", "-s", "-1"], ["truncate", "-s", "100000"]])
        func hiddenTruncation(command: [String]) throws {
            try withFiles([]) { mirror in
                #expect(try mirror.content("a") == Scenario.content(0))
                try mirror.await("a", "complete") { $0.state == "dual" }
                try mirror.settle()
                let script = """
                    import os, sys
                    path, size, time = sys.argv[1], os.stat(sys.argv[1]).st_size, os.stat(sys.argv[1]).st_mtime_ns
                    os.truncate(path, size - 1 if sys.argv[2] == "-1" else 100000)
                    os.truncate(path, size)
                    os.utime(path, ns=(time, time))
                    """
                let output = try run(["python3", "-c", script, mirror.at("a"), try #require(command.last)])
                #expect(output.code == 0, "\(output)")
                #expect(try passhsm("release", mirror.at("a")).code == 1)
                var expected = Scenario.content(0)
                let cut = command.last == "-1" ? Scenario.size - 1 : 100_000
                for index in cut..<Scenario.size { expected[index] = 0 }
                #expect(try mirror.content("a") == expected)
                // What only its attributes tell of is no change of the content.
                #expect(try mirror.content("b") == Scenario.content(1))
                try mirror.await("b", "complete") { $0.state == "dual" }
                chmod(mirror.at("b"), 0o600)
                _ = try passhsm("release", mirror.at("b"))
                #expect(try mirror.content("b") == Scenario.content(1))
            }
        }

        @Test("auto takes FUSE, and says why, where copies of the mount would be unprotected")
        func auto() throws {
            try withMirror(mounting: ["--frontend", "auto"]) { mirror throws in
                try File.put("x", mirror.remote("file"))
            } _: { mirror throws in
                #expect(
                    mirror.log.contains("(fuse, ")
                        && mirror.log.contains("not fanotify: the lower directory is not the top")
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
                try mirror.settle()
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
}
