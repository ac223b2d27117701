import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Synchronization
import TestSupport
import Testing

/// What a front end does with an incomplete file.
extension StoreFixture {
    /// Makes a request of the engine, and waits for its answer.
    private func ask(_ request: (FillEngine.Waiter) -> Void) throws -> FillEngine.Waiter {
        final class Answer: Sendable {
            let value = Mutex<FillError??>(nil)
        }
        let answer = Answer()
        let waiter = engine.makeWaiter { error in answer.value.withLock { $0 = .some(error) } }
        request(waiter)
        try until("an answer") { answer.value.withLock { $0 != nil } }
        if let error = answer.value.withLock({ $0 ?? nil }) { throw error }
        return waiter
    }

    /// Fills `bytes`, and waits until the engine has nothing more to do with the file.
    func fill(_ bytes: Range<Int>, of file: IncompleteFile) throws {
        _ = try ask { engine.ensureResident(bytes, of: file.fill, waiter: $0) }
        try until("the fetch's end") { file.fill.isIdle }
    }

    /// Fills these granules.
    func fill(granules: Range<Int>, of file: IncompleteFile) throws {
        try fill(granules.lowerBound * Self.granule..<granules.upperBound * Self.granule, of: file)
    }

    /// Writes `bytes` as a front end does: edges filled, whole granules reserved, dirty, data, record.
    func write(_ bytes: [UInt8], at offset: Int, to file: IncompleteFile) throws {
        let range = offset..<offset + bytes.count
        let layout = file.fill.layout
        let covered = layout.granules(coveredBy: range)
        for granule in layout.granules(touching: range) where !covered.contains(granule) {
            try fill(layout.bytes(of: granule..<granule + 1), of: file)
        }
        let waiter = try ask { engine.beginExclusiveWrite(covered, of: file.fill, waiter: $0) }
        var present = 0..<0
        defer { engine.endExclusiveWrite(waiter, of: file.fill, present: present) }
        try file.stored.becomeDirty()
        try file.stored.willWrite(layout.granules(touching: range))
        try file.stored.lower.put(bytes, at: offset)
        try file.stored.didWrite(layout.granules(touching: range))
        present = covered
    }

    /// Overwrites whole granules with `byte`.
    func write(_ byte: UInt8, granules: Range<Int>, to file: IncompleteFile) throws {
        try write(
            [UInt8](repeating: byte, count: granules.count * Self.granule), at: granules.lowerBound * Self.granule,
            to: file)
    }

    func truncate(_ file: IncompleteFile, to size: Int) throws {
        let cut = size / file.fill.layout.granuleSize..<Int.max
        let waiter = try ask { engine.beginExclusiveWrite(cut, of: file.fill, cancelFetches: true, waiter: $0) }
        defer { engine.endExclusiveWrite(waiter, of: file.fill, present: 0..<0) }
        try file.stored.becomeDirty()
        try file.stored.truncate(to: size)
        engine.truncated(file.fill, to: size)
    }
}

extension IncompleteFile {
    /// The granules that can be read without the remote.
    var granules: [Int] { fill.present.runs().flatMap { Array($0) } }

    /// The bytes of granules in the lower file.
    func bytes(granules: Range<Int>) throws -> [UInt8] {
        try stored.lower.bytes(
            granules.lowerBound * StoreFixture.granule..<granules.upperBound * StoreFixture.granule)
    }
}
