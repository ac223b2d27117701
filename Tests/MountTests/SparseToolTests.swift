import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Tools that look for holes find none in what is not there yet.
    @Suite struct SparseTools {
        private static let size = (3 << 20) + 123

        private func withCold(_ body: (Mirror, String) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                try body(mirror, mirror.at("file"))
            }
        }

        @Test("A cold file claims its blocks, and has no hole before its end")
        func holes() throws {
            try withCold { mirror, path in
                #expect(try File.stat(path).st_blocks == (Self.size + 511) / 512)
                let file = try File.open(path)
                for offset in [0, 1, 100_000, Self.size - 1] {
                    #expect(lseek(file.raw, offset, PASSHSM_SEEK_DATA) == offset)
                    #expect(lseek(file.raw, offset, PASSHSM_SEEK_HOLE) == Self.size)
                }
                for whence in [PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE] {
                    #expect(lseek(file.raw, Self.size, whence) == -1 && errno == ENXIO)
                }
                #expect(try mirror.status().counter("fetches") == 0, "asking costs nothing")
                _ = try file.bytes(1 << 20..<1 << 21)
                #expect(lseek(file.raw, 0, PASSHSM_SEEK_HOLE) == Self.size, "nor when part of it is there")
            }
        }

        @Test(
            "Copies of a cold file by sparse-aware tools are whole",
            arguments: [
                "cp --sparse=always \"$1\" \"$2\"", "cp --sparse=auto --reflink=auto \"$1\" \"$2\"",
                "tar -S -cf - -C \"$(dirname \"$1\")\" file | tar -xOf - >\"$2\"",
                "dd if=\"$1\" of=\"$2\" bs=64k conv=sparse status=none && truncate -r \"$1\" \"$2\"",
                "mv \"$1\" \"$2\"", "cat \"$1\" >\"$2\"",
            ])
        func copies(command: String) throws {
            try withCold { mirror, path in
                let copy = mirror.scratch.path + "/copy"
                try shell(command, [path, copy])
                #expect(try File.sameContent(copy, mirror.remote("file")))
            }
        }

        @Test("A complete file shows the holes that it has")
        func complete() throws {
            try withMirror { mirror throws in
                try File.put("x", mirror.remote("other"))
            } _: { mirror throws in
                try File.sparse(mirror.at("new"), size: 10 << 20)
                #expect(try File.stat(mirror.at("new")).st_blocks == 0)
                let file = try File.open(mirror.at("new"))
                #expect(lseek(file.raw, 0, PASSHSM_SEEK_HOLE) == 0)
            }
        }
    }
}
