import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// The checksum of complete files: where it comes from, what takes it away, and what `verify` makes of it.
@Suite struct ContentChecksumTests {
    private static func checksum(_ size: Int) -> UInt32 { CRC32C.of(Pattern.bytes(0..<size)) }

    @Test("Checksums of parts make that of the whole, whatever their lengths")
    func chain() {
        var random = SeededRandom()
        for _ in 0..<50 {
            let usual = 1 + random.below(300)
            var chain = CRC32C.Chain(usualLength: usual)
            var whole: [UInt8] = []
            for _ in 0..<random.below(8) {
                let count = random.below(2) == 0 ? usual : random.below(70_000)
                let part = (0..<count).map { _ in UInt8(random.below(256)) }
                chain.append(CRC32C.of(part), length: count)
                whole += part
            }
            #expect(chain.value == CRC32C.of(whole))
        }
    }

    @Test(
        "A file that becomes complete has its content's checksum, in whatever order and commits it came",
        arguments: [0, 1, 511, 512, 513, 40_000, 512 * 960, 512 * 1930 + 7])
    func filled(size: Int) throws {
        var random = SeededRandom()
        for parts in [1, 2, 7] {
            let fixture = try StoreFixture()
            defer { fixture.remove() }
            try fixture.stub(size: size, granuleSize: 512)
            var offsets = (0..<parts).map { $0 * size / parts }
            for index in offsets.indices { offsets.swapAt(index, random.below(parts)) }
            for (index, start) in offsets.enumerated() {
                do {
                    guard let file = try fixture.store.use(fixture.lower(), engine: fixture.engine) else { continue }
                    if size > 0 { try fixture.fill(start..<min(size, start + size / parts + 1), of: file) }
                    try file.stored.commit()
                }
                if index % 2 == 0 { try fixture.restart() }
            }
            if try !fixture.record().isComplete { try fixture.use().stored.commit() }
            #expect(try fixture.record().state == .dual && fixture.record().contentChecksum == Self.checksum(size))
        }
    }

    /// A fixture with a complete file.
    private func withComplete(_ size: Int = 50_000, _ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: size)
        do {
            let file = try fixture.use()
            try fixture.fill(0..<size, of: file)
            try file.stored.commit()
        }
        try fixture.restart()
        try body(fixture)
    }

    @Test("A local change takes the checksum away; a mark that is taken back does not")
    func changed() throws {
        try withComplete { fixture in
            // A mark is only taken back of a file that was not modified just now.
            let mark = try #require(try fixture.store.markDirty(fixture.lower()))
            #expect(try fixture.record().flags == .dirty)
            #expect(try fixture.store.unmarkDirty(fixture.lower(), mark))
            #expect(try fixture.record().contentChecksum == Self.checksum(50_000))
            _ = try fixture.store.markDirtyForGood(fixture.lower())
            #expect(try fixture.record().contentChecksum == nil)
        }
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 50_000)
        let file = try fixture.use()
        try fixture.write(7, granules: 2..<3, to: file)
        try fixture.fill(0..<50_000, of: file)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual && fixture.record().contentChecksum == nil)
    }

    @Test("A file of which nothing is left has no checksum")
    func released() throws {
        try withComplete { fixture in
            _ = try fixture.store.release(fixture.lower(), expecting: fixture.record())
            #expect(try fixture.record().state == .offline && fixture.record().contentChecksum == nil)
        }
    }

    // MARK: verify

    /// Changes bytes of the complete file, and keeps its time.
    private func damage(_ fixture: StoreFixture, _ bytes: [UInt8] = [UInt8](repeating: 0, count: 7)) throws {
        let time = try fixture.lower().stat().st_mtim
        try fixture.lower().put(bytes, at: 30_000)
        try fixture.lower().setTimes(access: FileTime.omit, modification: time)
    }

    private func verify(
        _ fixture: StoreFixture, repairs: Bool = false, remote: (any RemoteStore)? = nil
    ) throws -> (findings: [Disagreement], counts: VerifyCounts) {
        var findings: [Disagreement] = []
        let counts = try Verifier(fixture.store, repairs: repairs, remote: remote, firstPause: .milliseconds(1)) {
            findings.append($0)
        }.run()
        return (findings, counts)
    }

    @Test("Seven bytes of a complete file that changed, with its time kept, are found; a repair fetches it again")
    func changedBytes() throws {
        try withComplete { fixture in
            #expect(try verify(fixture).findings.isEmpty)
            try damage(fixture)
            let found = try verify(fixture).findings
            #expect(found.map(\.kind) == [.data] && found[0].outcome == .found)
            #expect(try fixture.lower().bytes(30_000..<30_007) == [UInt8](repeating: 0, count: 7), "it is not touched")
            try fixture.change { $0.flags.insert(.lost) }
            #expect(try verify(fixture, repairs: true).findings.map(\.outcome) == [.left], "nobody else has it")
            try fixture.change { $0.flags = [] }
            #expect(try verify(fixture, repairs: true).findings.map(\.outcome) == [.dropped])
            #expect(try fixture.record().state == .offline)
            #expect(try verify(fixture).findings.isEmpty)
        }
    }

    @Test("What is not the remote's is found by asking it, and where; a repair fetches it again")
    func againstRemote() throws {
        try withComplete { fixture in
            try fixture.change { $0.contentChecksum = nil }
            try damage(fixture)
            let blind = try verify(fixture)
            #expect(blind.findings.isEmpty && blind.counts.unchecked == 1)
            let found = try verify(fixture, remote: fixture.source).findings
            #expect(found.map(\.kind) == [.data] && found.map(\.range) == [30_000..<30_007])
            #expect(try verify(fixture, repairs: true, remote: fixture.source).findings.map(\.outcome) == [.dropped])
        }
    }

    @Test("What was right as a whole is noted by a repair, and by nothing else")
    func learnt() throws {
        for digest in [nil, RemoteDigest(.crc32c, withUnsafeBytes(of: Self.checksum(50_000).bigEndian) { Array($0) })] {
            try withComplete { fixture in
                try fixture.change {
                    $0.contentChecksum = nil
                    $0.object.digest = digest
                }
                let remote = digest == nil ? fixture.source : nil
                #expect(try verify(fixture, remote: remote).findings.isEmpty)
                #expect(try fixture.record().contentChecksum == nil)
                #expect(try verify(fixture, repairs: true, remote: remote).findings.isEmpty)
                #expect(try fixture.record().contentChecksum == Self.checksum(50_000))
            }
        }
    }

    @Test("A remote that has another version is no finding; one that fails is, and for many files ends the run")
    func remoteProblems() throws {
        try withComplete { fixture in
            fixture.source.goDown(FillError(.io, .remoteChanged, "because"))
            let other = try verify(fixture, repairs: true, remote: fixture.source)
            #expect(other.findings.isEmpty && other.counts.changed == 1)
            fixture.source.goDown(FillError(.io, .remoteFailed, "because"))
            let failed = try verify(fixture, repairs: true, remote: fixture.source).findings
            #expect(failed.map(\.kind) == [.unreadable] && failed[0].cause.contains("because"))
            #expect(try fixture.record().state == .dual)
            for index in 0..<10 {
                let record = try fixture.stub("f\(index)", size: 1, state: .dual)
                #expect(record.state == .dual)
            }
            let down = try verify(fixture, remote: fixture.source).findings
            #expect(down.count == 8 && down.last?.cause.hasSuffix("it is not asked any more") == true)
        }
    }
}
