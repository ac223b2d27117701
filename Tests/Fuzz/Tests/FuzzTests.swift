import Foundation
import TestSupport
import Testing

/// The short form of `make fuzz`, without the compiler's help: the seeds, among them all inputs that once were findings,
/// and for a second what a generator makes of them. PASSHSM_SEED repeats a run.
@Suite(.serialized) struct FuzzTests {
    private static let corpus = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Corpus")
    private static let seed = SeededRandom(for: "fuzz targets").seed

    private static func seeds(_ target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = corpus.appendingPathComponent(target.name)
        return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { name in
            (name, Array(try Data(contentsOf: folder.appendingPathComponent(name))))
        }
    }

    @Test("Every seed of a fuzz target is parsed as it should be", arguments: FuzzTarget.all)
    func seeds(target: FuzzTarget) throws {
        let seeds = try Self.seeds(target)
        #expect(seeds.count >= 2)
        for (name, bytes) in seeds {
            do { try target.check(bytes) } catch { Issue.record("\(target)/\(name): \(error)") }
        }
    }

    @Test("What is made of the seeds by chance is parsed as it should be, and in time", arguments: FuzzTarget.all)
    func mutations(target: FuzzTarget) throws {
        let seed = Self.seed
        var mutator = Mutator(
            seeds: try Self.seeds(target).map(\.bytes), maxLength: target.maxLength, random: SeededRandom(seed: seed))
        // Where an input ends the process, it is found in this file.
        let last = FileManager.default.temporaryDirectory.appendingPathComponent("passhsm-fuzz-\(target.name)-\(seed)")
        guard FileManager.default.createFile(atPath: last.path, contents: nil) else {
            throw CocoaError(.fileWriteUnknown)
        }
        let file = try FileHandle(forUpdating: last)
        let end = ContinuousClock.now + .seconds(1)
        var (count, slowest) = (0, Duration.zero)
        while .now < end {
            let input = mutator.next()
            try file.truncate(atOffset: 0)
            try file.write(contentsOf: Data(input))
            let start = ContinuousClock.now
            do { try target.check(input) } catch {
                Issue.record("\(target), input \(count) of seed \(seed), kept in \(last.path): \(error)")
                return
            }
            slowest = max(slowest, .now - start)
            count += 1
        }
        try FileManager.default.removeItem(at: last)
        // Quadratic work on inputs of this length takes longer, also on a busy machine.
        #expect(slowest < .seconds(5), "seed \(seed)")
        #expect(count > 10)
    }

    @Test("A long input takes no more time than its length", arguments: FuzzTarget.all.filter { $0.maxLongLength > 0 })
    func long(target: FuzzTarget) throws {
        let seed = try #require(try Self.seeds(target).first)
        for (number, input) in Mutator.long(seed.bytes, target.maxLongLength).enumerated() {
            let start = ContinuousClock.now
            do { try target.check(input) } catch { Issue.record("\(target), long input \(number): \(error)") }
            let duration = ContinuousClock.now - start
            // With its square it would be half a minute.
            #expect(duration < .seconds(8), "\(target), long input \(number)")
        }
    }
}
