/// Every request that waits for the engine, from its waiter to its answer, with its deadline. Pure.
///
/// The thread that takes a request out answers it. A request is therefore answered once, and that thread needs no
/// file's lock.
struct FillRequests: Sendable {
    typealias Instant = ContinuousClock.Instant

    /// One waiter, of a range or of an exclusive write.
    struct Request: Sendable {
        var file: FillFile?
        /// The granules that the request waits for; empty for an exclusive write.
        var granules = 0..<0
        /// The real time of the start, for the counters. `made` is by the engine's clock.
        let began = Instant.now
        let made: Instant
        var deadline: Instant
        /// When the request ends whatever arrives; nil for never.
        let end: Instant?
        var isFill = false
        var priority = FillState.Priority.demand
        /// Cancelled before the request was made by the waiter.
        var isCancelled = false
        /// The task of a look-up, which concerns no file's content.
        var task: Task<Void, Never>?
        let completion: FillEngine.Completion

        /// When the request has to be looked at.
        var due: Instant { end.map { min($0, deadline) } ?? deadline }
        var isMade: Bool { file != nil || task != nil }
    }

    private struct Due: Comparable, Sendable {
        let time: Instant
        let waiter: FillEngine.Waiter

        static func < (left: Self, right: Self) -> Bool { left.time < right.time }
    }

    private var all: [FillEngine.Waiter: Request] = [:]
    /// May hold entries of requests that are answered or postponed, until these outnumber the others.
    private var dues = Heap<Due>()

    var count: Int { all.count }
    subscript(waiter: FillEngine.Waiter) -> Request? { all[waiter] }

    mutating func add(_ waiter: FillEngine.Waiter, _ request: Request) {
        all[waiter] = request
        dues.push(Due(time: request.due, waiter: waiter))
        guard dues.count > 2 * all.count + 64 else { return }
        dues = Heap(all.map { Due(time: $0.value.due, waiter: $0.key) })
    }

    mutating func update(_ waiter: FillEngine.Waiter, _ change: (inout Request) -> Void) {
        guard var request = all[waiter] else { return }
        change(&request)
        all[waiter] = request
    }

    mutating func take(_ waiter: FillEngine.Waiter) -> Request? { all.removeValue(forKey: waiter) }

    /// Takes out every request that was made, and leaves waiters by which none was made.
    mutating func takeMade() -> [(waiter: FillEngine.Waiter, request: Request)] {
        let made = all.filter(\.value.isMade)
        for waiter in made.keys { all[waiter] = nil }
        return made.map { ($0.key, $0.value) }
    }

    /// The requests whose deadline lies before `now`. The caller takes or postpones each of them.
    mutating func due(_ now: Instant) -> [(waiter: FillEngine.Waiter, request: Request)] {
        var due: [(FillEngine.Waiter, Request)] = []
        while let first = dues.first, first.time < now {
            dues.pop()
            if let request = all[first.waiter], request.due == first.time { due.append((first.waiter, request)) }
        }
        return due
    }

    /// Gives the request a later deadline.
    mutating func postpone(_ waiter: FillEngine.Waiter, to deadline: Instant) {
        guard var request = all[waiter] else { return }
        request.deadline = deadline
        all[waiter] = request
        dues.push(Due(time: request.due, waiter: waiter))
    }
}
