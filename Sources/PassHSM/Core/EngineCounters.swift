import Synchronization

/// The engine's counters since the daemon started. They are updated without a lock, so the figures of one snapshot may
/// come from slightly different moments.
package final class EngineCounters: Sendable {
    /// Reads that the lower file could answer at once.
    package let hits = Atomic<Int>(0)
    /// Requests that waited for a fetch that was under way already.
    package let joins = Atomic<Int>(0)
    /// Requests that needed a new fetch.
    package let misses = Atomic<Int>(0)
    /// Fetches that were started, prefetches included.
    package let fetches = Atomic<Int>(0)
    package let prefetches = Atomic<Int>(0)
    package let granulesFetched = Atomic<Int>(0)
    package let bytesFetched = Atomic<Int>(0)
    /// Fetches, checks and requests that failed; cancelled ones do not count.
    package let errors = Atomic<Int>(0)
    /// Requests that their callers cancelled.
    package let cancelled = Atomic<Int>(0)
    /// Further attempts of fetches that failed.
    package let retries = Atomic<Int>(0)
    /// Sums over all fills that ended without an error, in nanoseconds: the time from the request to its completion,
    /// and the time that the completion took to answer the reader.
    package let waitNanoseconds = Atomic<Int>(0)
    package let answerNanoseconds = Atomic<Int>(0)
    /// Sums over all fetches, in nanoseconds: waiting for a thread, waiting for the remote, writing to the lower file.
    package let queueNanoseconds = Atomic<Int>(0)
    package let remoteNanoseconds = Atomic<Int>(0)
    package let writeNanoseconds = Atomic<Int>(0)

    package init() {}

    /// Every counter with the name that `status` shows, in the order in which it shows them.
    package var snapshot: [(name: String, value: Int)] {
        func read(_ counter: borrowing Atomic<Int>) -> Int { counter.load(ordering: .relaxed) }
        return [
            ("hits", read(hits)), ("joins", read(joins)), ("misses", read(misses)), ("fetches", read(fetches)),
            ("prefetches", read(prefetches)), ("granulesFetched", read(granulesFetched)),
            ("bytesFetched", read(bytesFetched)), ("errors", read(errors)), ("cancelled", read(cancelled)),
            ("retries", read(retries)), ("waitNanoseconds", read(waitNanoseconds)),
            ("answerNanoseconds", read(answerNanoseconds)), ("queueNanoseconds", read(queueNanoseconds)),
            ("remoteNanoseconds", read(remoteNanoseconds)), ("writeNanoseconds", read(writeNanoseconds)),
        ]
    }
}

extension Atomic where Value == Int {
    @inline(__always)
    package func add(_ amount: Int = 1) { _ = wrappingAdd(amount, ordering: .relaxed) }

    /// Adds the nanoseconds of a duration.
    func add(_ time: Duration) {
        add(Int(time.components.seconds) * 1_000_000_000 + Int(time.components.attoseconds / 1_000_000_000))
    }
}
