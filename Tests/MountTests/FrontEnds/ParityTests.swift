import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.FrontEnds {
    /// What one access made the engine do: fetches for whoever waits, fetches ahead of them, and granules.
    private struct Cost: Equatable {
        var demanded: Int
        var ahead: Int
        var granules: Int
    }

    private static let size = 24 << 20

    /// A trace of accesses: scattered ones, a stream, and jumps in between.
    private static let trace: [Range<Int>] = {
        var random = SeededRandom(seed: 7)
        var result: [Range<Int>] = []
        for _ in 0..<20 {
            let offset = Int(random.next() % UInt64(size / 4096)) * 4096
            result.append(offset..<min(size, offset + ([100, 4096, 70_000].randomElement(using: &random) ?? 1)))
        }
        return result
    }()

    private static func cost(_ mirror: Mirror, since before: [String: Int]) throws -> (Cost, [String: Int]) {
        var now = try mirror.status().counters
        var last = before
        // Twice the same: nothing is under way.
        try until("no more fetches", seconds: 10) {
            usleep(40_000)
            (last, now) = (now, try mirror.status().counters)
            return last["granulesFetched"] == now["granulesFetched"] && last["fetches"] == now["fetches"]
        }
        func delta(_ name: String) -> Int { (now[name] ?? 0) - (before[name] ?? 0) }
        return (
            Cost(
                demanded: delta("fetches") - delta("prefetches"), ahead: delta("prefetches"),
                granules: delta("granulesFetched")), now
        )
    }

    @Test("For one trace of accesses both front ends fetch the same granules, for the same reason, at the same access")
    func parity() throws {
        var results: [(ranges: [[Int]], costs: [Cost], counters: [String: Int])] = []
        for frontEnd in FrontEnd.allCases {
            try withMirror(mounting: frontEnd.arguments + ["--fill", "read"]) { mirror throws in
                for name in ["file", "stream", "whole"] { try Pattern.write(mirror.remote(name), size: Self.size) }
            } _: { mirror throws in
                var costs: [Cost] = []
                var counters = try mirror.status().counters
                func note() throws {
                    let (cost, now) = try Self.cost(mirror, since: counters)
                    costs.append(cost)
                    counters = now
                }
                var file: Descriptor? = try File.open(mirror.at("file"))
                // The kernel's own read-ahead asks FUSE for more, and raises no events: scattered accesses have none.
                posix_fadvise(file?.raw ?? -1, 0, 0, POSIX_FADV_RANDOM)
                for range in Self.trace {
                    #expect(try file?.bytes(range) == Pattern.bytes(range))
                    try note()
                }
                // A reader who reads on is read ahead of; each step is one request of either kernel.
                file = try File.open(mirror.at("stream"))
                posix_fadvise(file?.raw ?? -1, 0, 0, POSIX_FADV_RANDOM)
                for start in stride(from: 0, to: 1 << 20, by: 64 << 10) {
                    #expect(try file?.bytes(start..<start + 4096) == Pattern.bytes(start..<start + 4096))
                    try note()
                }
                file = nil
                let output = try passhsm("recall", mirror.at("whole"))
                #expect(output.code == 0, "\(output)")
                try note()
                try mirror.stop()
                let ranges = try ["file", "stream", "whole"].flatMap { try mirror.state($0, inLower: true).ranges }
                results.append((ranges, costs, counters))
            }
        }
        for name in results[0].counters.keys.sorted() {
            print(
                "PASSHSM: \(name): fuse \(results[0].counters[name] ?? 0), fanotify \(results[1].counters[name] ?? 0)")
        }
        #expect(results[0].ranges == results[1].ranges)
        for (access, (fuse, fanotify)) in zip(results[0].costs, results[1].costs).enumerated() {
            #expect(fuse == fanotify, "access \(access)")
        }
        #expect(results[0].costs[0].demanded > 0)
        let scattered = results[0].costs[..<Self.trace.count]
        #expect(scattered.map(\.granules).reduce(0, +) < Self.size / Trees.granule, "all of it was fetched")
        #expect(results[0].costs.contains { $0.ahead > 0 }, "nothing was read ahead: its class was not compared")
    }
}
