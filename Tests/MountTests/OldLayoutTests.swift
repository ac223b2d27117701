import Foundation
import Glibc
import TestSupport
import Testing

extension MountTests {
    /// Lower directories as earlier versions made them, with the stubs at the top.
    @Suite struct OldLayout {
        private static let size = 300_000

        /// Not mounted; of `partial` a granule is there, `dirty` was changed.
        private func withOldDirectory(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                mkdir(mirror.remote("dir"), 0o755)
                for name in ["partial", "dirty", "dir/stub"] { try Pattern.write(mirror.remote(name), size: Self.size) }
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("partial"), 0..<10)
                try File.open(mirror.at("dirty"), O_WRONLY).put([1, 2, 3], at: 100_000)
                try mirror.stop()
                try shell(
                    """
                    mv lower/.passhsm store; mv store/tree old; mv store old/.passhsm; rm -r lower; mv old lower
                    sed -i 's/^format=.*/format=1/; /^tree=/d' lower/.passhsm/config
                    """, in: mirror.scratch.path)
                try body(mirror)
            }
        }

        private func expectContent(_ mirror: Mirror) throws {
            for name in ["partial", "dir/stub"] { #expect(try File.sameContent(mirror.at(name), mirror.remote(name))) }
            var expected = Pattern.bytes(0..<Self.size)
            expected.replaceSubrange(100_000..<100_003, with: [1, 2, 3])
            #expect(try File.bytes(mirror.at("dirty")) == expected)
            #expect(try mirror.state("dirty").flags == ["dirty"])
        }

        @Test(
            "Such a directory goes on to work in every command, and its mount says what it means",
            arguments: FrontEnd.allCases)
        func works(frontEnd: FrontEnd) throws {
            try withOldDirectory { mirror throws in
                for (arguments, text) in [
                    (["state", "partial"], "partial"), (["pin", "dir/stub"], "1 file pinned"),
                    (["unpin", "-r", "."], "3 files unpinned"), (["release", "partial"], "1 file released"),
                    (["verify", "."], "nothing wrong"),
                ] {
                    let output = try run([Machine.program] + arguments, in: mirror.lower)
                    #expect(output.code == 0 && output.out.contains(text), "\(arguments): \(output)")
                }
                let output = try run(
                    [Machine.program, "mount", mirror.lower, "--log", mirror.logPath] + frontEnd.arguments)
                #expect(
                    output.code == 0 && output.out.contains("WARNING: an earlier version made this"), "\(output)")
                #expect(output.out.components(separatedBy: "WARNING").count == 2)
                try expectContent(mirror)
                try shell("mkdir new; echo new >new/file; mv dir/stub new/moved", in: mirror.mount)
                #expect(try passhsm("recall", "-r", mirror.mount).code == 0)
                #expect(try passhsm("release", mirror.at("partial")).code == 0)
                #expect(try mirror.state("partial").state == "offline")
                #expect(try passhsm("unmount", mirror.lower).code == 0)
                #expect(
                    try shell("cat new/file; head -1 .passhsm/config; ls -A", in: mirror.lower)
                        == "new\nformat=1\n.passhsm\ndir\ndirty\nnew\npartial\n")
            }
        }

        @Test(
            "An import moves its files in, with what is there of them and what was changed",
            arguments: FrontEnd.allCases)
        func moved(frontEnd: FrontEnd) throws {
            try withOldDirectory { mirror throws in
                let output = try passhsm("import", mirror.source, mirror.lower)
                #expect(output.code == 0 && output.err.contains("the files were moved into .passhsm/tree"), "\(output)")
                #expect(output.out.contains("0 new, 0 changed, 3 unchanged, 0 gone"), "\(output)")
                #expect(try shell("ls -A", in: mirror.lower) == ".passhsm\nNOT-MOUNTED.txt\n")
                try mirror.start(frontEnd.arguments)
                #expect(!mirror.log.contains("WARNING"))
                try expectContent(mirror)
                try mirror.stop()
            }
        }

        @Test("Where something is in the way the import says so, and goes on with the files where they are")
        func obstacle() throws {
            try withOldDirectory { mirror throws in
                let inside = mirror.lower + "/dir"
                try shell("mount -t tmpfs none \"$1\"", [inside])
                defer { umount2(inside, Int32(MNT_DETACH)) }
                let output = try passhsm("import", mirror.source, mirror.lower)
                #expect(output.code == 0 && output.err.contains("\(inside) is a mount point"), "\(output)")
                umount2(inside, 0)
                #expect(try shell("head -1 .passhsm/config; ls", in: mirror.lower) == "format=1\ndir\ndirty\npartial\n")
            }
        }

        @Test(
            "When moving was killed in between, a mount ends it, and nothing is missing in it",
            arguments: FrontEnd.allCases)
        func brokenOff(frontEnd: FrontEnd) throws {
            try withOldDirectory { mirror throws in
                try shell(
                    "mkdir .passhsm/tree; mv dir dirty .passhsm/tree; sed -i '1s/.*/format=2\\ntree=moving/' .passhsm/config",
                    in: mirror.lower)
                #expect(try mirror.state("partial").state == "partial")
                #expect(try mirror.state("dirty").flags == ["dirty"])
                try mirror.start(frontEnd.arguments)
                try expectContent(mirror)
                #expect(try shell("ls", in: mirror.mount) == "dir\ndirty\npartial\n")
                try mirror.stop()
                #expect(try shell("ls -A", in: mirror.lower) == ".passhsm\nNOT-MOUNTED.txt\n")
            }
        }
    }
}
