import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// 6: kill -9 in the middle of fills and writes.
    @Suite struct Crash {
        private static let rounds = Machine.isLong ? 500 : 20
        private static let files = 24

        private static func size(_ index: Int) -> Int { index % 4 == 0 ? 6 << 20 : 1000 + index * 30_011 }

        @Test(
            "After kill -9 in the middle of fills every byte is right, and nothing is wrongly called present; 20 rounds"
        )
        func rounds() throws {
            for round in 0..<Self.rounds { try crash(round) }
        }

        private func crash(_ round: Int) throws {
            try withMirror(mounting: nil) { mirror throws in
                for index in 0..<Self.files {
                    try Pattern.write(mirror.remote("f\(index)"), size: Self.size(index), seed: index)
                }
            } _: { mirror throws in
                let fill = round % 2 == 0 ? "auto" : "read"
                try mirror.start(["--fill", fill], remote: "latency=\(round % 5)ms,bandwidth=40M")
                var readers = try (0..<6).map { reader in
                    try Child([
                        "bash", "-c", "for i in $(seq 0 \(Self.files - 1) | shuf); do cat \"$1/f$i\" >/dev/null; done",
                        "bash",
                        mirror.mount,
                    ])
                }
                var written: [Int: [UInt8]] = [:]
                let end = Clock.now + Double(20 + round * 37 % 400) / 1000
                // Writes that were answered are as durable as the page cache.
                for index in stride(from: round % 5, to: Self.files, by: 5) where Clock.now < end {
                    let bytes = Pattern.bytes(0..<70_000, seed: 77)
                    try File.open(mirror.at("f\(index)"), O_WRONLY).put(bytes, at: 500)
                    written[index] = bytes
                }
                while Clock.now < end { usleep(1000) }
                try mirror.killDaemon()
                readers.removeAll()
                try check(mirror, written, "round \(round), before the mount", inLower: true)
                try mirror.start(["--fill", fill])
                try check(mirror, written, "round \(round), after it", inLower: false)
                try mirror.stop()
            }
        }

        private func check(_ mirror: Mirror, _ written: [Int: [UInt8]], _ when: String, inLower: Bool) throws {
            for index in 0..<Self.files {
                var expected = Pattern.bytes(0..<Self.size(index), seed: index)
                if let bytes = written[index] {
                    expected += [UInt8](repeating: 0, count: max(0, 500 + bytes.count - expected.count))
                    expected.replaceSubrange(500..<500 + bytes.count, with: bytes)
                }
                let file = "f\(index)"
                if inLower {
                    for range in try mirror.state(file, inLower: true).ranges {
                        let range = range[0]..<range[1]
                        let isRight = try File.bytes(mirror.tree + "/" + file, range) == Array(expected[range])
                        #expect(isRight, "\(when): \(file) \(range) is called present")
                    }
                } else {
                    let isRight = try File.bytes(mirror.at(file)) == expected
                    #expect(isRight, "\(when): \(file)")
                    let isDirty = try mirror.state(file).flags.contains("dirty")
                    #expect(isDirty || written[index] == nil, "\(when): the change of \(file) is forgotten")
                }
            }
        }
    }
}
