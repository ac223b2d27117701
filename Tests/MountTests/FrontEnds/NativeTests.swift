import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.FrontEnds {
    /// What the lower file system does by itself with one front end, and FUSE stands before with the other.
    @Suite struct Native {
        @Test(
            "Names, attributes and listings raise no events; with FUSE they are requests", arguments: FrontEnd.allCases)
        func names(frontEnd: FrontEnd) throws {
            try withMirror(mounting: frontEnd.arguments) { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                let before = try mirror.requests()
                try shell(
                    "ls -lR . >list; rm list; mkdir new; mv new other; ln -s x link; chmod 700 other; rmdir other; rm link",
                    in: mirror.mount)
                let after = try mirror.requests()
                func came(_ name: String) -> Int { (after[name] ?? 0) - (before[name] ?? 0) }
                if frontEnd == .fuse {
                    #expect(came("lookup") > 0)
                    #expect(came("rename2") == 1)
                } else {
                    // `list` is made, which opens it.
                    #expect(came("open") <= 1)
                    #expect(came("access") == 0)
                }
            }
        }

        @Test(
            "FIEMAP, RWF_NOWAIT and clones to and from the outside are the lower file system's own, and not FUSE's",
            arguments: FrontEnd.allCases)
        func calls(frontEnd: FrontEnd) throws {
            try withScratch { scratch throws in
                let disk = try Disk(.xfs, at: scratch.path + "/lower")
                defer { disk.remove() }
                let mirror = try Mirror(scratch, apart: true)
                let outside = scratch.path + "/outside"
                do {
                    try Pattern.write(mirror.remote("file"), size: 100_000)
                    try mirror.importSource()
                    try shell("mkdir \"$2\"; mount --bind \"$1\" \"$2\"", [mirror.tree, outside])
                    try mirror.start(frontEnd.arguments)
                    #expect(try mirror.content("file") == Pattern.bytes(0..<100_000))
                    try mirror.await("file", "complete") { $0.state == "dual" }
                    let script = """
                        import fcntl, os, struct, sys
                        file = os.open(sys.argv[1], os.O_RDONLY)
                        os.pread(file, 4096, 0)
                        def tell(name, call):
                            try: call()
                            except OSError as error: print(name)
                        question = bytearray(struct.pack("=QQIIII", 0, 2**64 - 1, 0, 0, 0, 0))
                        tell("fiemap", lambda: fcntl.ioctl(file, 0xC020660B, question))
                        tell("nowait", lambda: os.preadv(file, [bytearray(4096)], 0, os.RWF_NOWAIT))
                        """
                    let refused = try run(["python3", "-c", script, mirror.at("file")]).out
                    #expect(refused == (frontEnd == .fuse ? "fiemap\nnowait\n" : ""))
                    for (from, to) in [(mirror.mount, outside), (outside, mirror.mount)] {
                        let copy = try run(["cp", "--reflink=always", from + "/file", to + "/copy"])
                        #expect((copy.code == 0) == (frontEnd == .fanotify), "\(copy)")
                        if copy.code == 0 { #expect(try File.bytes(to + "/copy") == Pattern.bytes(0..<100_000)) }
                        unlink(to + "/copy")
                    }
                    try mirror.stop()
                } catch {
                    _ = mirror.cleanUp()
                    umount2(outside, Int32(MNT_DETACH))
                    throw error
                }
                umount2(outside, 0)
                try disk.unmount()
            }
        }
    }
}
