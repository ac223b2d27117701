import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Content that is compared with the digest that the remote gives for it: a source with cshatag's attributes.
    @Suite struct DigestMount {
        private static let size = 3 << 20

        @Test(
            "Content of the wrong digest is EIO with the cause in the state, and never complete; the right one is",
            arguments: ["auto", "open", "read"], [1000, size])
        func wrong(fill: String, size: Int) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                for name in ["right", "wrong", "none"] { try Pattern.write(mirror.remote(name), size: size) }
                try Trees.noteDigest(mirror.remote("right"), isRight: true)
                try Trees.noteDigest(mirror.remote("wrong"), isRight: false)
            } _: { mirror throws in
                for name in ["right", "none"] {
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
                for _ in 0..<2 {
                    #expect(File.readError(mirror.at("wrong")) == EIO)
                    try until("the file to be put down") { try mirror.state("wrong").state == "offline" }
                    #expect(try mirror.state("wrong").lastError?.contains("sha256:") == true)
                }
                #expect(mirror.log.contains("wrongContent"))
                try mirror.stop()
                #expect(try mirror.state("right", inLower: true).state == "dual")
                #expect(try mirror.state("wrong", inLower: true).presentBytes == 0)
                // The next import brings the right digest for the same version.
                try Trees.noteDigest(mirror.remote("wrong"), isRight: true)
                try mirror.importSource()
                try mirror.start(["--fill", fill])
                #expect(try File.sameContent(mirror.at("wrong"), mirror.remote("wrong")))
            }
        }

        @Test(
            "Garbage from the remote is EIO where there is a digest, and nothing of it is left when the remote is right again"
        )
        func garbage() throws {
            try withMirror(mounting: ["--fill", "open"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
                try Trees.noteDigest(mirror.remote("file"), isRight: true)
            } _: { mirror throws in
                try File.put("", mirror.spoilPath("garbage"))
                #expect(File.readError(mirror.at("file")) == EIO)
                unlink(mirror.spoilPath("garbage"))
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test("With --verify strict no byte is seen before all of them are right, nor one that cannot be checked")
        func strict() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for name in ["right", "wrong", "none", "partial", "cut", "wrongly-cut"] {
                    try Pattern.write(mirror.remote(name), size: Self.size)
                }
                for name in ["right", "partial", "cut"] { try Trees.noteDigest(mirror.remote(name), isRight: true) }
                for name in ["wrong", "wrongly-cut"] { try Trees.noteDigest(mirror.remote(name), isRight: false) }
            } _: { mirror throws in
                for name in ["wrong", "none", "partial"] { _ = try File.bytes(mirror.at(name), 0..<10) }
                try mirror.stop()
                try mirror.start(["--fill", "read", "--verify", "strict"])
                for name in ["wrong", "none"] {
                    let error = #expect(throws: Errno.self) { try File.bytes(mirror.at(name), 0..<10) }
                    #expect(error?.rawValue == EIO, "\(name): present before, and never checked")
                }
                for name in ["right", "partial"] {
                    #expect(try File.bytes(mirror.at(name), 0..<10) == Pattern.bytes(0..<10))
                    try until("the completion") { try mirror.state(name).state == "dual" }
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
                #expect(try shell("truncate -s 100000 cut; head -c 10 cut | wc -c", in: mirror.mount) == "10\n")
                #expect(try File.bytes(mirror.at("cut")) == Pattern.bytes(0..<100_000))
                #expect(truncate(mirror.at("wrongly-cut"), 100_000) == -1 && errno == EIO)
                try File.open(mirror.at("none"), O_WRONLY | O_TRUNC).put([1, 2, 3], at: 0)
                #expect(try File.bytes(mirror.at("none")) == [1, 2, 3], "local content needs no remote")
            }
        }

        @Test(
            "Strictly, what was checked goes into its place whole, or after a crash not at all",
            arguments: Disk.Kind.withShutdown, ["", "check.move:kill", "check.moved:kill"])
        func place(kind: Disk.Kind, failpoint: String) throws {
            let size = 20 << 20 + 1234
            try withScratch { scratch in
                let disk = try Disk(kind, at: scratch.path + "/lower")
                defer { disk.remove() }
                let mirror = try Mirror(scratch, apart: true)
                defer { _ = mirror.cleanUp() }
                try Pattern.write(mirror.remote("file"), size: size)
                try Trees.noteDigest(mirror.remote("file"), isRight: true)
                try mirror.importSource()
                try mirror.start(["--verify", "strict"], failpoints: failpoint)
                if !failpoint.isEmpty {
                    #expect(File.readError(mirror.at("file")) == ECONNABORTED)
                    try mirror.killDaemon()
                    #expect(try mirror.state("file", inLower: true).presentBytes == 0)
                    try mirror.start(["--verify", "strict"])
                }
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                try until("the completion") { try mirror.state("file").state == "dual" }
                try mirror.stop()
                #expect(try File.sameContent(mirror.tree + "/file", mirror.remote("file")))
                try disk.unmount()
            }
        }
    }
}
