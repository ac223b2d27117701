import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// 2 and 3: only what is asked for is fetched, and only once.
    @Suite struct Ranges {
        @Test(
            "One byte from the middle of a 10 GiB file fetches at most one fetch unit; the rest stays absent",
            arguments: ["auto", "read"], [5 << 30, (5 << 30) + Trees.fetchUnit - 1])
        func oneByte(fill: String, offset: Int) throws {
            let size = 10 << 30
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                try File.sparse(mirror.remote("huge"), size: size)
                try File.open(mirror.remote("huge"), O_WRONLY).put([7], at: offset)
            } _: { mirror throws in
                #expect(try File.bytes(mirror.at("huge"), offset..<offset + 1) == [7])
                let status = try mirror.status()
                #expect((1...Trees.fetchUnit).contains(status.counter("bytesFetched")))
                let state = try mirror.state("huge")
                #expect(state.state == "partial" && state.size == size)
                #expect(state.presentBytes == status.counter("bytesFetched"))
                #expect(state.ranges.contains { $0[0] <= offset && offset < $0[1] })
                try mirror.stop()
                #expect(try File.stat(mirror.tree + "/huge").st_blocks * 512 <= Trees.fetchUnit + 65536)
                #expect(try mirror.state("huge", inLower: true).presentBytes == state.presentBytes)
            }
        }

        @Test("64 readers of one cold file at once: each granule is fetched exactly once", arguments: ["open", "read"])
        func readers(fill: String) throws {
            let size = 8 << 20
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                try Pattern.write(mirror.remote("cold"), size: size + 1)
            } _: { mirror throws in
                try mirror.hold()
                let readers = try (0..<64).map { _ in try Child(["cmp", mirror.remote("cold"), mirror.at("cold")]) }
                // The page cache lets one of several readers of a page ask; each open asks for itself.
                try until("readers") { try mirror.status().waiting >= (fill == "open" ? 64 : 1) }
                mirror.letGo()
                for reader in readers {
                    let output = try reader.wait(seconds: 60)
                    #expect(output.code == 0, "\(output)")
                }
                let status = try mirror.status()
                #expect(status.counter("granulesFetched") == size / Trees.granule + 1)
                #expect(status.counter("bytesFetched") == size + 1)
                if fill == "open" { #expect(status.counter("misses") == 1 && status.counter("joins") == 63) }
            }
        }

        @Test(
            "A program that reads on is read for in large requests, and one that jumps gets little more than it asks for"
        )
        func requests() throws {
            let size = 32 << 20
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for name in ["on", "about"] { try Pattern.write(mirror.remote(name), size: size) }
            } _: { mirror throws in
                #expect(try run(["cmp", mirror.remote("on"), mirror.at("on")]).code == 0)
                #expect(try mirror.status().requests["read"] ?? 0 <= 32 + 16)
                let before = try mirror.status().counter("bytesFetched")
                for offset in [20_000_000, 3_000_000, 11_000_000, 30_000_000] {
                    #expect(
                        try File.bytes(mirror.at("about"), offset..<offset + 1) == Pattern.bytes(offset..<offset + 1))
                }
                #expect(try mirror.status().counter("bytesFetched") - before <= 4 * 2 * Trees.granule)
            }
        }

        @Test("Many readers of many places of one file get their bytes, and each granule comes once")
        func places() throws {
            let size = 24 << 20
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("cold"), size: size)
            } _: { mirror throws in
                let readers = try (0..<48).map { index in
                    // Readers of 4 KiB to 1 MiB, forward from places that are no boundaries of anything.
                    let (block, skip) = (4096 << (index % 9), index * 499_979 % size)
                    return try Child([
                        "bash", "-c",
                        "cmp <(dd if=\"$1\" bs=$3 iflag=skip_bytes skip=$4 status=none) <(tail -c +$(($4 + 1)) \"$2\")",
                        "bash", mirror.at("cold"), mirror.remote("cold"), String(block), String(skip),
                    ])
                }
                for reader in readers {
                    let output = try reader.wait(seconds: 120)
                    #expect(output.code == 0, "\(output)")
                }
                #expect(try mirror.status().counter("granulesFetched") == size / Trees.granule)
            }
        }

        @Test("Sequential reading runs ahead, and small files come with their open")
        func readAhead() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("long"), size: 16 << 20)
                try Pattern.write(mirror.remote("small"), size: 5000)
            } _: { mirror throws in
                let file = try File.open(mirror.at("small"))
                #expect(try mirror.state("small").state == "dual", "filled before the open was answered")
                _ = file
                #expect(try File.sameContent(mirror.remote("long"), mirror.at("long")))
                let status = try mirror.status()
                #expect(status.counter("prefetches") > 0)
                #expect(status.counter("fetches") <= 16 * 4, "read-ahead asks for large pieces")
            }
        }

        @Test("With --fill open the whole file is there when the open is answered, and with --fill read nothing is")
        func fillModes() throws {
            for (fill, state) in [("open", "dual"), ("read", "offline")] {
                try withMirror(mounting: ["--fill", fill]) { mirror throws in
                    try Pattern.write(mirror.remote("file"), size: 3 << 20)
                } _: { mirror throws in
                    let file = try File.open(mirror.at("file"))
                    #expect(try mirror.state("file").state == state)
                    #expect(try file.bytes(0..<3 << 20) == Pattern.bytes(0..<3 << 20))
                }
            }
        }

        @Test(
            "Files of sizes around a granule and a fetch unit are read whole, and their ends are ends",
            arguments: [
                0, 1, Trees.granule - 1, Trees.granule, Trees.granule + 1, Trees.fetchUnit - 1, Trees.fetchUnit,
                Trees.fetchUnit + 1,
            ])
        func sizes(size: Int) throws {
            for fill in ["read", "auto"] {
                try withMirror(mounting: ["--fill", fill]) { mirror throws in
                    try Pattern.write(mirror.remote("file"), size: size)
                } _: { mirror throws in
                    let file = try File.open(mirror.at("file"))
                    #expect(try file.bytes(0..<size + 10) == Pattern.bytes(0..<size))
                    #expect(try file.bytes(size..<size + 1) == [])
                    #expect(try file.bytes(size + 1_000_000..<size + 1_000_001) == [])
                    #expect(try mirror.status().counter("bytesFetched") == size)
                }
            }
        }

        @Test("The largest file of the lower file system gives its last byte")
        func largest() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                let sizes = [Int.max, 1 << 62, 1 << 53, (1 << 44) - 4096, 1 << 43, 1 << 41]
                let size = try #require(
                    sizes.first { (try? File.sparse(mirror.remote("largest"), size: $0)) != nil })
                try File.open(mirror.remote("largest"), O_WRONLY).put([42], at: size - 1)
            } _: { mirror throws in
                let size = try Int(File.stat(mirror.at("largest")).st_size)
                #expect(try size == Int(File.stat(mirror.remote("largest")).st_size))
                #expect(try File.bytes(mirror.at("largest"), size - 1..<size) == [42])
                #expect(try File.bytes(mirror.at("largest"), size / 2..<size / 2 + 1) == [0])
                #expect(try mirror.status().counter("bytesFetched") <= 2 * Trees.fetchUnit)
                #expect(try mirror.state("largest").state == "partial")
            }
        }
    }
}
