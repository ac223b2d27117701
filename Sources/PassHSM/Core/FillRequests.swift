/// Every request that waits for the engine, from its ticket to its answer, with its deadline. Pure.
///
/// The thread that takes a request out answers it. A request is therefore answered once, and that thread needs no
/// file's lock.
struct FillRequests: Sendable {
    typealias Instant = ContinuousClock.Instant

    /// One waiter, of a range or of a claim.
    struct Request: Sendable {
        var file: FillFile?
        /// The granules that the request waits for; empty for a claim.
        var granules = 0..<0
        /// The real time of the start, for the counters. `made` is by the engine's clock.
        let began = Instant.now
        let made: Instant
        var deadline: Instant
        /// When the request ends whatever arrives; nil for never.
        let end: Instant?
        var isFill = false
        var priority = FillState.Priority.demand
        /// Cancelled before the request was made under the ticket.
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
        let ticket: FillEngine.Ticket

        static func < (left: Self, right: Self) -> Bool { left.time < right.time }
    }

    private var all: [FillEngine.Ticket: Request] = [:]
    /// May hold entries of requests that are answered or postponed, until these outnumber the others.
    private var dues = Heap<Due>()

    var count: Int { all.count }
    subscript(ticket: FillEngine.Ticket) -> Request? { all[ticket] }

    mutating func add(_ ticket: FillEngine.Ticket, _ request: Request) {
        all[ticket] = request
        dues.push(Due(time: request.due, ticket: ticket))
        guard dues.count > 2 * all.count + 64 else { return }
        dues = Heap(all.map { Due(time: $0.value.due, ticket: $0.key) })
    }

    mutating func update(_ ticket: FillEngine.Ticket, _ change: (inout Request) -> Void) {
        guard var request = all[ticket] else { return }
        change(&request)
        all[ticket] = request
    }

    mutating func take(_ ticket: FillEngine.Ticket) -> Request? { all.removeValue(forKey: ticket) }

    /// Takes out every request that was made, and leaves tickets under which none was made.
    mutating func takeMade() -> [(ticket: FillEngine.Ticket, request: Request)] {
        let made = all.filter(\.value.isMade)
        for ticket in made.keys { all[ticket] = nil }
        return made.map { ($0.key, $0.value) }
    }

    /// The requests whose deadline lies before `now`. The caller takes or postpones each of them.
    mutating func due(_ now: Instant) -> [(ticket: FillEngine.Ticket, request: Request)] {
        var due: [(FillEngine.Ticket, Request)] = []
        while let first = dues.first, first.time < now {
            dues.pop()
            if let request = all[first.ticket], request.due == first.time { due.append((first.ticket, request)) }
        }
        return due
    }

    /// Gives the request a later deadline.
    mutating func postpone(_ ticket: FillEngine.Ticket, to deadline: Instant) {
        guard var request = all[ticket] else { return }
        request.deadline = deadline
        all[ticket] = request
        dues.push(Due(time: request.due, ticket: ticket))
    }
}
