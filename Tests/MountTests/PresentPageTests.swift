import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Pages that are here, while the remote gives nothing of those beside them.
    @Suite struct PresentPages {
        private static let size = 8 << 20
        private static let granule = 65_536

        /// A file of which some granules are present, and the kernel has no page of any.
        private func withPart(_ body: (Mirror, _ present: [Range<Int>]) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                do {
                    let file = try File.open(mirror.at("file"))
                    #expect(posix_fadvise(file.raw, 0, 0, POSIX_FADV_RANDOM) == 0)
                    for granule in [0, 3, 4, 9, 40, 42, 44, 100] {
                        _ = try file.bytes(granule * Self.granule..<granule * Self.granule + 1)
                    }
                }
                try mirror.stop()
                try mirror.start(["--fill", "read", "--deadline", "30"])
                let present = try mirror.state("file").ranges.map { $0[0]..<$0[1] }
                try #require(present.count > 2 && present.allSatisfy { $0.count < 1 << 20 }, "\(present)")
                try body(mirror, present)
            }
        }

        @Test(
            "The present end of a range is read at once, by read(2) and through a mapping; what is behind waits",
            arguments: ["hold", "fail"])
        func beside(how: String) throws {
            try withPart { mirror, present throws in
                if how == "hold" { try mirror.hold() } else { try mirror.fail(true) }
                for range in present {
                    // One that reads on has the kernel read ahead.
                    let block = range.upperBound - Self.granule..<range.upperBound
                    let start = Clock.now
                    let output = try run(
                        [
                            "dd", "if=\(mirror.at("file"))", "bs=16k", "count=4", "skip=\(block.lowerBound / 16_384)",
                            "status=none",
                        ],
                        seconds: 60)
                    #expect(
                        output.code == 0 && Clock.now - start < 3, "\(range): \(Clock.now - start) s, \(output.err)")
                    #expect(try File.bytes(mirror.at("file"), block) == Pattern.bytes(block))
                }
                let file = try File.open(mirror.at("file"))
                let address = mmap(nil, Self.size, PROT_READ, MAP_SHARED, file.raw, 0)
                let memory = try #require(address == MAP_FAILED ? nil : address)
                defer { munmap(memory, Self.size) }
                for range in present {
                    let start = Clock.now
                    #expect(
                        memory.load(fromByteOffset: range.lowerBound + 9, as: UInt8.self)
                            == Pattern.byte(at: range.lowerBound + 9))
                    #expect(Clock.now - start < 3, "\(range) through a mapping")
                }
                let behind = try #require(present.first).upperBound
                let reader = try Child([
                    "cmp", "-n", "100000", "-i", "\(behind)", mirror.at("file"), mirror.remote("file"),
                ])
                if how == "hold" {
                    usleep(1_000_000)
                    #expect(reader.poll() == nil, "what is absent waits")
                    mirror.letGo()
                    #expect(try reader.wait(seconds: 60).code == 0)
                } else {
                    #expect(try reader.wait(seconds: 60).code == 2, "what is absent fails")
                    try mirror.fail(false)
                }
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test("Direct reads, which go to the program as they are, wait for all of their range")
        func direct() throws {
            try withPart { mirror, present throws in
                try mirror.hold()
                let range = try #require(present.first)
                let direct = try Child(
                    [
                        "python3", "-c",
                        """
                        import mmap, os, sys
                        f = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT); at = int(sys.argv[2])
                        m = mmap.mmap(-1, 65536); n = os.preadv(f, [m], at)
                        sys.exit(0 if n == 65536 and m[:] == open(sys.argv[3], "rb").read()[at:at + n] else 1)
                        """, mirror.at("file"), "\(range.upperBound - 32_768)", mirror.remote("file"),
                    ])
                usleep(1_000_000)
                #expect(direct.poll() == nil)
                mirror.letGo()
                #expect(try direct.wait(seconds: 60).code == 0)
            }
        }

        @Test("Readers of random ranges get the right bytes or wait, while the remote comes and goes")
        func random() throws {
            try withPart { mirror, present throws in
                let script = """
                    import os, random, sys, time
                    f = os.open(sys.argv[1], os.O_RDONLY); want = open(sys.argv[2], "rb").read(); r = random.Random(int(sys.argv[3]))
                    for i in range(150):
                        at = r.randrange(len(want)); n = r.choice([1, 4096, 32768, 200000, 1 << 20])
                        if r.random() < .3: os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
                        got = os.pread(f, n, at)
                        if got != want[at:at + n]: sys.exit(f"wrong at {at} + {n}")
                    """
                let readers = try (0..<4).map { seed in
                    try Child(["python3", "-c", script, mirror.at("file"), mirror.remote("file"), "\(seed)"])
                }
                while readers.contains(where: { $0.poll() == nil }) {
                    try mirror.hold()
                    usleep(700_000)
                    mirror.letGo()
                    usleep(100_000)
                }
                for reader in readers {
                    let output = try reader.wait(seconds: 1)
                    #expect(output.code == 0, "\(output.err)")
                }
            }
        }
    }
}
