/// Who waits for the engine, and until when: every request from its ticket to its answer. Pure.
///
/// Whoever takes a request out answers it; so it is answered once, and by whom does not depend on any file.
struct FillRequests: Sendable {
    typealias Instant = ContinuousClock.Instant

    /// One waiter, of a range or of a claim.
    struct Request: Sendable {
        var file: FillFile?
        /// What is waited for.
        var granules = 0..<0
        /// By the clock, for what is counted; `made` by the engine's time.
        let began = Instant.now
        let made: Instant
        var deadline: Instant
        /// Whatever comes.
        let end: Instant?
        var isFill = false
        var priority = FillState.Priority.demand
        /// Cancelled before the request was made under the ticket.
        var isCancelled = false
        /// Of a request that is of no file's content.
        var task: Task<Void, Never>?
        let completion: FillEngine.Completion

        /// When it has to be looked at.
        var due: Instant { end.map { min($0, deadline) } ?? deadline }
        var isMade: Bool { file != nil || task != nil }
    }

    private struct Due: Comparable, Sendable {
        let time: Instant
        let ticket: FillEngine.Ticket

        static func < (left: Self, right: Self) -> Bool { left.time < right.time }
    }

    private var all: [FillEngine.Ticket: Request] = [:]
    /// Also of those that are answered, or due later, until they are more than the others.
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

    /// All that somebody waits for.
    mutating func takeMade() -> [(ticket: FillEngine.Ticket, request: Request)] {
        let made = all.filter(\.value.isMade)
        for ticket in made.keys { all[ticket] = nil }
        return made.map { ($0.key, $0.value) }
    }

    /// Those that have to be looked at by `now`; each is taken or postponed then.
    mutating func due(_ now: Instant) -> [(ticket: FillEngine.Ticket, request: Request)] {
        var due: [(FillEngine.Ticket, Request)] = []
        while let first = dues.first, first.time < now {
            dues.pop()
            if let request = all[first.ticket], request.due == first.time { due.append((first.ticket, request)) }
        }
        return due
    }

    /// Its deadline is later.
    mutating func postpone(_ ticket: FillEngine.Ticket, to deadline: Instant) {
        guard var request = all[ticket] else { return }
        request.deadline = deadline
        all[ticket] = request
        dues.push(Due(time: request.due, ticket: ticket))
    }
}
