import Synchronization

/// What the engine counts, since the start of the daemon. Updated without a lock, so that a snapshot's figures may be
/// of slightly different moments.
package final class EngineCounters: Sendable {
    package let hits = Atomic<Int>(0)
    package let joins = Atomic<Int>(0)
    package let misses = Atomic<Int>(0)
    package let fetches = Atomic<Int>(0)
    package let prefetches = Atomic<Int>(0)
    package let granulesFetched = Atomic<Int>(0)
    package let bytesFetched = Atomic<Int>(0)
    package let errors = Atomic<Int>(0)
    package let cancelled = Atomic<Int>(0)
    package let retries = Atomic<Int>(0)

    package init() {}

    /// Every counter by the name under which `status` shows it, in the order of the display.
    package var snapshot: [(name: String, value: Int)] {
        func read(_ counter: borrowing Atomic<Int>) -> Int { counter.load(ordering: .relaxed) }
        return [
            ("hits", read(hits)), ("joins", read(joins)), ("misses", read(misses)), ("fetches", read(fetches)),
            ("prefetches", read(prefetches)), ("granulesFetched", read(granulesFetched)),
            ("bytesFetched", read(bytesFetched)), ("errors", read(errors)), ("cancelled", read(cancelled)),
            ("retries", read(retries)),
        ]
    }
}

extension Atomic where Value == Int {
    @inline(__always)
    package func add(_ amount: Int = 1) { _ = wrappingAdd(amount, ordering: .relaxed) }
}
