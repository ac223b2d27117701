import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// When a complete file is dirty: what the daemon does not see being written.
    @Suite struct Dirty {
        private static let size = 20_000

        /// A mount of one complete file that was changed long ago.
        private func withFile(_ body: (Mirror) throws -> Void) throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
                try shell("touch -d 2020-01-01 file", in: mirror.source)
            } _: { mirror throws in
                #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<Self.size))
                try until("the file to be complete on disk") { try mirror.state("file").state == "dual" }
                try body(mirror)
            }
        }

        /// A writable mapping of the file whose descriptor is closed already.
        private func map(_ mirror: Mirror) throws -> UnsafeMutableRawPointer {
            let file = try File.open(mirror.at("file"), O_RDWR)
            let memory = mmap(nil, Self.size, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0)
            guard let memory, memory != MAP_FAILED else { throw Failure("mmap: \(errno)") }
            return memory
        }

        @Test("A file that is written through a mapping after its last handle was closed stays dirty")
        func mapped() throws {
            try withFile { mirror in
                let memory = try map(mirror)
                try until("the release") { try mirror.status().openHandles == 0 }
                // What looks again does so once a second.
                sleep(2)
                #expect(try mirror.state("file").flags.contains("dirty"))
                memory.storeBytes(of: 0, toByteOffset: 100, as: UInt8.self)
                munmap(memory, Self.size)
                #expect(try File.bytes(mirror.at("file"), 100..<101) == [0])
                sleep(2)
                #expect(try mirror.state("file").flags.contains("dirty"))
            }
        }

        @Test("A file that was mapped for writing and not written is clean when the mapping is gone")
        func onlyMapped() throws {
            try withFile { mirror in
                let memory = try map(mirror)
                try until("the release") { try mirror.status().openHandles == 0 }
                #expect(try mirror.state("file").flags.contains("dirty"))
                munmap(memory, Self.size)
                try until("the flag to be taken back") { try !mirror.state("file").flags.contains("dirty") }
            }
        }

        @Test(
            "A file that is pinned while it is open for writing is clean when it was not written",
            arguments: [false, true])
        func pinned(isWritten: Bool) throws {
            try withFile { mirror in
                var file: Descriptor? = try File.open(mirror.at("file"), O_RDWR)
                #expect(try passhsm("pin", mirror.at("file")).code == 0)
                if isWritten { try file?.put([1], at: 0) }
                file = nil
                try until("the release") { try mirror.status().openHandles == 0 }
                let flags: Set = isWritten ? ["pinned", "dirty"] : ["pinned"]
                if isWritten {
                    sleep(2)
                } else {
                    try until("the look") { try Set(mirror.state("file").flags) == flags }
                }
                #expect(try Set(mirror.state("file").flags) == flags)
            }
        }

        @Test("O_TRUNC empties a file that is opened for reading only, complete or not", arguments: [false, true])
        func truncatedByReader(isComplete: Bool) throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                if isComplete { _ = try File.bytes(mirror.at("file")) }
                let file = try File.open(mirror.at("file"), O_RDONLY | O_TRUNC)
                #expect(try file.stat().st_size == 0 && File.stat(mirror.at("file")).st_size == 0)
                #expect(try mirror.state("file").flags.contains("dirty"))
            }
        }

        @Test("A file can be opened for writing the moment its fill is done, while it is open for reading")
        func writtenAtCompletion() throws {
            let count = 400
            try withMirror { mirror throws in
                for index in 0..<count { try Pattern.write(mirror.remote("f\(index)"), size: 5000, seed: index) }
            } _: { mirror throws in
                for index in 0..<count {
                    let reader = try File.open(mirror.at("f\(index)"))
                    let writer = try File.open(mirror.at("f\(index)"), O_RDWR)
                    try writer.put([1], at: 0)
                    #expect(try reader.bytes(0..<2) == [1, Pattern.byte(at: 1, seed: index)])
                }
            }
        }

        @Test("Where the records cannot be seen, in a container of one's own, stubs are not taken for local files")
        func userNamespace() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                try mirror.stop()
                let output = try run(["unshare", "-Ur", Machine.program, "state", mirror.lower + "/file"])
                #expect(output.code != 0 && output.err.contains("CAP_SYS_ADMIN"), "\(output)")
                try mirror.start()
            }
        }
    }
}
