import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// mmap(2) of files that are not there yet: no page of zeros, and no lost store.
    @Suite struct Mappings {
        private static let size = 3 << 20

        private func withMapping(
            _ path: String, _ flags: Int32, writable: Bool, _ body: (UnsafeMutableRawBufferPointer) throws -> Void
        ) throws {
            let file = try File.open(path, writable || flags == MAP_SHARED ? O_RDWR : O_RDONLY)
            let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
            let address = mmap(nil, Self.size, protection, flags, file.raw, 0)
            guard let address, address != MAP_FAILED else { throw Failure("mmap: \(String(cString: strerror(errno)))") }
            defer { munmap(address, Self.size) }
            try body(UnsafeMutableRawBufferPointer(start: address, count: Self.size))
        }

        private func withFile(fill: String, _ body: (Mirror, String) throws -> Void) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
                // Of a file that was changed just now, a further change could not be told.
                try shell("touch -d 2020-01-01 file", in: mirror.source)
            } _: { mirror throws in
                try body(mirror, mirror.at("file"))
            }
        }

        @Test(
            "Every byte of a cold mapping is the remote's", arguments: ["read", "auto", "open"],
            [MAP_SHARED, MAP_PRIVATE])
        func reading(fill: String, flags: Int32) throws {
            try withFile(fill: fill) { mirror, path in
                try withMapping(path, flags, writable: false) { memory in
                    #expect(memory[2_000_001] == Pattern.byte(at: 2_000_001))
                    #expect(memory.elementsEqual(Pattern.bytes(0..<Self.size)))
                }
                // The mapping's end is noticed within a second.
                try until("the file to be clean") { try !mirror.state("file").flags.contains("dirty") }
            }
        }

        @Test("Stores into a private mapping of a cold file stay private", arguments: ["read", "auto"])
        func privateStores(fill: String) throws {
            try withFile(fill: fill) { mirror, path in
                try withMapping(path, MAP_PRIVATE, writable: true) { memory in
                    memory[1_234_567] = 0
                    #expect(memory[1_234_566] == Pattern.byte(at: 1_234_566) && memory[1_234_567] == 0)
                }
                #expect(try File.bytes(path) == Pattern.bytes(0..<Self.size))
                try mirror.stop()
                #expect(try File.bytes(mirror.tree + "/file") == Pattern.bytes(0..<Self.size))
            }
        }

        @Test(
            "Stores into a shared mapping of a cold file reach the file, and the rest is the remote's",
            arguments: ["read", "auto"])
        func sharedStores(fill: String) throws {
            try withFile(fill: fill) { mirror, path in
                var expected = Pattern.bytes(0..<Self.size)
                let places = [0, 70_000, 1_234_567, Self.size - 1]
                try withMapping(path, MAP_SHARED, writable: true) { memory in
                    for place in places { memory[place] = 0 }
                    for place in places { expected[place] = 0 }
                    #expect(memory.elementsEqual(expected))
                    #expect(msync(memory.baseAddress, memory.count, MS_SYNC) == 0)
                    memory[5] = 0
                    expected[5] = 0
                }
                #expect(try File.bytes(path) == expected)
                #expect(try mirror.state("file").flags.contains("dirty"))
                try mirror.stop()
                #expect(try File.bytes(mirror.tree + "/file") == expected)
                try mirror.start(["--fill", fill])
                #expect(try File.bytes(path) == expected)
            }
        }

        @Test("A mapping of a cold file sees what is written through a descriptor, and the reverse")
        func coherence() throws {
            try withFile(fill: "read") { _, path in
                let other = try File.open(path, O_RDWR)
                try withMapping(path, MAP_SHARED, writable: true) { memory in
                    try other.put([1, 2, 3], at: 500_000)
                    #expect(memory[500_001] == 2)
                    memory[900_000] = 4
                    #expect(try other.bytes(900_000..<900_001) == [4])
                    #expect(try other.bytes(900_001..<900_002) == [Pattern.byte(at: 900_001)])
                }
            }
        }

        @Test("A program is run from a cold mount")
        func program() throws {
            try withMirror { mirror throws in
                try shell("cp /bin/ls \"$1\"", [mirror.remote("program")])
            } _: { mirror throws in
                #expect(try shell("\"$1\" -d /", [mirror.at("program")]) == "/\n")
            }
        }
    }
}
