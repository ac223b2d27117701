import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// Random changes, commits and crashes against a byte array.
@Suite struct ModelTests {
    private static let granule = 512

    /// One incomplete file, and what it should be.
    private final class Model {
        let fixture: StoreFixture
        var random: SeededRandom
        var file: IncompleteFile?
        /// What a reader has to get.
        var content: [UInt8]
        /// Granules that hold local bytes, and those of them that survive a power cut.
        var written = Set<Int>()
        var durable = Set<Int>()
        var openCommits: [StoredFile.Commit] = []
        var history: [String] = []

        init(_ fixture: StoreFixture, _ random: SeededRandom) throws {
            self.fixture = fixture
            self.random = random
            // The map's pages tell of 960 granules each.
            let granules = self.random.below(8) == 0 ? 1100 : 40
            let size = self.random.below(granules * granule)
            content = Pattern.bytes(0..<size)
            try fixture.stub(size: size, granuleSize: granule)
            file = try fixture.use()
        }

        private func used() throws -> IncompleteFile { try #require(file) }

        private func range(beyond: Int) -> Range<Int> {
            let start = random.below(content.count + beyond)
            let length = random.below(2) == 0 ? random.below(3 * granule) : random.below(12 * granule)
            return start..<start + length
        }

        func step() throws {
            let choice = random.below(100)
            switch choice {
            case ..<25: try fill(range(beyond: 1))
            case ..<50: try write(range(beyond: random.below(6) == 0 ? 5000 : 1))
            case ..<58:
                try truncate(random.below(3) == 0 ? content.count + random.below(3000) : random.below(content.count))
            case ..<68: try commit { try $0.commit() }
            case ..<72: try commit { try $0.sync() }
            case ..<79: try beginCommit()
            case ..<86: try endCommit()
            case ..<95: try restart(losesPower: false)
            default: try restart(losesPower: true)
            }
        }

        func fill(_ range: Range<Int>) throws {
            history.append("fill \(range)")
            try fixture.fill(range, of: used())
            try check(only: range)
        }

        func write(_ range: Range<Int>) throws {
            if range.isEmpty { return }
            history.append("write \(range)")
            let bytes = range.map { _ in UInt8.random(in: 1...255, using: &random) }
            if content.count < range.upperBound {
                content += [UInt8](repeating: 0, count: range.upperBound - content.count)
            }
            content.replaceSubrange(range, with: bytes)
            let file = try used()
            try fixture.write(bytes, at: range.lowerBound, to: file)
            written.formUnion(file.fill.layout.granules(touching: range))
            try check(only: range)
        }

        func truncate(_ size: Int) throws {
            history.append("truncate \(size)")
            try fixture.truncate(used(), to: size)
            content = Array(content.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - content.count))
        }

        func commit(_ body: (StoredFile) throws -> Void) throws {
            history.append("commit")
            try body(used().stored)
            durable.formUnion(written)
        }

        func beginCommit() throws {
            history.append("begin")
            openCommits.append(try used().stored.beginCommit())
        }

        func endCommit() throws {
            guard let commit = openCommits.popLast() else { return }
            history.append("end")
            try used().stored.end(commit, isSynced: random.below(2) == 0)
        }

        /// The daemon is killed; with `losesPower`, what was not made durable is no longer believed.
        func restart(losesPower: Bool) throws {
            history.append(losesPower ? "power cut" : "kill")
            openCommits = []
            file = nil
            try fixture.restart()
            if losesPower, try fixture.hasMap() { try fixture.changeSession() }
            file = try fixture.store.use(fixture.lower(), engine: fixture.engine)
            guard let file else { return }
            for granule in written where !file.fill.present.contains(granule) {
                let bytes = file.fill.layout.bytes(of: granule..<granule + 1)
                if bytes.isEmpty { continue }
                try #require(losesPower && !durable.contains(granule), "granule \(granule) lost: \(history)")
                content.replaceSubrange(bytes, with: Pattern.bytes(bytes))
            }
            written = written.filter { file.fill.present.contains($0) }
            try check()
        }

        /// Expects that everything that is called present has the right bytes.
        func check(only range: Range<Int>? = nil) throws {
            let lower = try fixture.lower()
            let bytes = try lower.bytes(0..<content.count + 1)
            try #require(bytes.count == content.count, "\(bytes.count), not \(content.count): \(history)")
            guard let layout = file?.fill.layout else {
                return try #require(bytes == content, "complete: \(history)")
            }
            let limit = min(layout.limit, content.count)
            try #require(bytes[limit...] == content[limit...], "beyond the limit: \(history)")
            for granule in layout.granules(touching: range ?? 0..<content.count) {
                let place = layout.bytes(of: granule..<granule + 1)
                guard file?.fill.isPresent(place) == true else { continue }
                try #require(bytes[place] == content[place], "granule \(granule): \(history)")
            }
        }

        /// Fetches the rest, and expects all of it to be right, on disk too.
        func end() throws {
            history.append("end of all")
            if let file {
                try fixture.fill(0..<max(1, content.count), of: file)
                try check(only: 0..<content.count)
                #expect(file.fill.isComplete)
                try file.stored.commit()
                #expect(file.stored.isFinished)
            }
            file = nil
            openCommits = []
            try fixture.restart()
            #expect(try fixture.store.use(fixture.lower(), engine: fixture.engine) == nil)
            try check()
            #expect(try !fixture.hasMap())
        }
    }

    @Test(
        "Whatever is changed, committed and cut off in whatever order: what is called present has the right bytes",
        arguments: [false, true])
    func random(isPrompt: Bool) throws {
        var random = SeededRandom(for: "store model, prompt \(isPrompt)")
        for _ in 0..<25 {
            let fixture = try StoreFixture(isPrompt: isPrompt)
            defer { fixture.remove() }
            let model = try Model(fixture, random)
            for _ in 0..<60 where model.file != nil { try model.step() }
            try model.end()
            random = model.random
        }
    }
}
