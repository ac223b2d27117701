import Foundation
import Glibc
import TestSupport
import Testing

extension MountTests {
    /// A source file that is written while the mount still needs it.
    @Suite struct SourceChangeTests {
        private static let size = 4 << 20

        private func withHalf(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size, seed: 1)
                try shell("touch -d 2020-01-01 file", in: mirror.source)
            } _: { mirror throws in
                do {
                    let file = try File.open(mirror.at("file"))
                    posix_fadvise(file.raw, 0, 0, POSIX_FADV_RANDOM)
                    #expect(try file.bytes(0..<1000) == Pattern.bytes(0..<1000, seed: 1))
                }
                try body(mirror)
            }
        }

        @Test func `A source file that was rewritten, with size and time kept, gives no byte beside the old ones`()
            throws
        {
            try withHalf { mirror throws in
                try shell("cp -p file ../kept", in: mirror.source)
                try Pattern.write(mirror.remote("file"), size: Self.size, seed: 2)
                try shell("touch -r ../kept file", in: mirror.source)
                #expect(File.readError(mirror.at("file")) == EIO)
                #expect(try File.bytes(mirror.at("file"), 0..<1000) == Pattern.bytes(0..<1000, seed: 1))
                #expect(try mirror.state("file").flags.contains("stale"))
                try mirror.stop()
                try mirror.importSource()
                try mirror.start()
                #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<Self.size, seed: 2))
            }
        }

        @Test func `A chmod in the source: what is absent says what to do, and complete files keep their content`()
            throws
        {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for name in ["whole", "half"] { try Pattern.write(mirror.remote(name), size: Self.size) }
            } _: { mirror throws in
                #expect(try File.sameContent(mirror.at("whole"), mirror.remote("whole")))
                _ = try File.bytes(mirror.at("half"), 0..<10)
                try until("the completion") { try mirror.state("whole").state == "dual" }
                try shell("chmod -R u=rwX,go= .", in: mirror.source)
                #expect(File.readError(mirror.at("half")) == EIO)
                let state = try passhsm("state", mirror.at("half"))
                #expect(state.out.contains("unmount, and run the import again"), "\(state)")
                #expect(mirror.log.contains("unmount, and run the import again"))
                try mirror.stop()
                try mirror.importSource()
                try mirror.start(["--fill", "read"])
                #expect(try mirror.state("whole").state == "dual" && mirror.state("half").state == "offline")
                for name in ["whole", "half"] {
                    #expect(try File.stat(mirror.at(name)).st_mode & 0o777 == 0o600)
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
            }
        }

        @Test func `A changed file that is copied onto its object before all of it came says what that has cost`()
            throws
        {
            try withHalf { mirror throws in
                try File.open(mirror.at("file"), O_WRONLY).put([1, 2, 3], at: 10)
                let output = try run(["cp", mirror.at("file"), mirror.remote("file")])
                #expect(output.code != 0)
                let state = try mirror.state("file")
                #expect(Set(state.flags).isSuperset(of: ["dirty", "stale"]), "\(state)")
                #expect(state.warning?.hasPrefix("\(Self.size - state.presentBytes) bytes") == true, "\(state)")
                #expect(try File.bytes(mirror.at("file"), 10..<13) == [1, 2, 3])
                let imported = try run([Machine.program, "import", mirror.source, mirror.lower])
                #expect(imported.code != 0)
            }
        }
    }
}
