import Testing

@testable import HSMCore

/// `#expect` takes no mutating call.
private final class Reader {
    private var readAhead = ReadAhead()

    func note(_ granules: Range<Int>, maxWindow: Int) -> Range<Int>? { readAhead.note(granules, maxWindow: maxWindow) }
}

@Suite struct ReadAheadTests {
    @Test("A single access opens no window")
    func single() {
        let readAhead = Reader()
        #expect(readAhead.note(5..<6, maxWindow: 64) == nil)
        #expect(readAhead.note(100..<101, maxWindow: 64) == nil)
    }

    @Test("The window opens at the second sequential access, doubles while it hits, and stops at the limit")
    func doubles() {
        let readAhead = Reader()
        var windows: [Int] = []
        var ahead = 0
        for granule in 0..<400 {
            guard let range = readAhead.note(granule..<granule + 1, maxWindow: 32) else { continue }
            #expect(range.lowerBound == max(ahead, granule + 1), "nothing is asked for twice, and nothing left out")
            ahead = range.upperBound
            windows.append(ahead - granule - 1)
        }
        #expect(windows.prefix(5) == [4, 8, 16, 32, 32])
        #expect(windows.allSatisfy { $0 <= 32 })
        #expect(ahead >= 400)
    }

    @Test("Several reads inside one granule are one access of a stream")
    func smallReads() {
        let readAhead = Reader()
        for _ in 0..<10 { #expect(readAhead.note(0..<1, maxWindow: 64) == nil) }
        #expect(readAhead.note(1..<2, maxWindow: 64) == 2..<6)
        for _ in 0..<10 { #expect(readAhead.note(1..<2, maxWindow: 64) == nil) }
    }

    @Test("Interleaved readers are followed apart")
    func interleaved() {
        let readAhead = Reader()
        for reader in 0..<8 { #expect(readAhead.note(reader * 1000..<reader * 1000 + 1, maxWindow: 64) == nil) }
        for reader in 0..<8 {
            let next = reader * 1000 + 1
            #expect(readAhead.note(next..<next + 1, maxWindow: 64) == next + 1..<next + 5)
        }
    }

    @Test("A ninth reader replaces the one that was idle longest")
    func replacement() {
        let readAhead = Reader()
        for reader in 0..<9 { _ = readAhead.note(reader * 1000..<reader * 1000 + 1, maxWindow: 64) }
        #expect(readAhead.note(1..<2, maxWindow: 64) == nil)
        #expect(readAhead.note(8001..<8002, maxWindow: 64) == 8002..<8006)
    }

    @Test("A limit of none asks for nothing")
    func off() {
        let readAhead = Reader()
        for granule in 0..<20 { #expect(readAhead.note(granule..<granule + 1, maxWindow: 0) == nil) }
    }
}
