/// Which fetch runs next: at most so many at once, shared fairly. Pure; each step takes constant time on average but for the
/// owners that are left out, who are few.
///
/// - Demand runs before prefetches, these before background work; but each fourth turn is the prefetches' and each
///   sixteenth the background's, so that they come on whatever the demand. A quarter of the places is the demand's alone.
/// - Within a priority users come in turn, and of a user the files. A user has three quarters of the places at most while
///   there are others, a file half of them. A user of whom nothing runs gets a place beyond the limit, so that nobody
///   waits until somebody else's fetches end.
/// - A fetch of which nothing comes is *stalled* (``stall(_:)``): it does not count, up to a second limit, of which one user
///   has half at most. So objects that hang keep no others waiting.
struct FetchQueue<ID: Hashable & Sendable>: Sendable {
    typealias User = FillState.User
    typealias Priority = FillState.Priority

    /// Whose a fetch is.
    struct Owner: Hashable, Sendable {
        var user: User = 0
        var file: ObjectIdentifier?
    }

    private enum Standing { case waiting, running, stalled }

    private struct Entry {
        var priority: Priority
        let owner: Owner
        var standing = Standing.waiting
        /// Where it waits: under an older number it waits no more.
        var place: UInt64
    }

    private struct Place {
        let id: ID
        let number: UInt64
    }

    /// What there is of one owner.
    private struct Book {
        var known = 0
        var running = 0
        var stalled = 0
    }

    /// Those of one priority that wait. Numbers of those that wait no more are left until they come up.
    private struct Waiting {
        var users: [User: RoundRobin<Owner, Place>] = [:]
        var turns = Fifo<User>()
    }

    private let limit: Int
    private let maxStalled: Int
    private var entries: [ID: Entry] = [:]
    private var waiting = [Waiting](repeating: .init(), count: Priority.allCases.count)
    private var users: [User: Book] = [:]
    private var files: [Owner: Book] = [:]
    /// Fetches that count, and those of them that are not demand.
    private var running = 0
    private var runningAhead = 0
    private var stalled = 0
    private var turns = 0
    private var lastPlace: UInt64 = 0
    /// Numbers left of those that wait no more.
    private var stale = 0

    /// - Parameters:
    ///   - limit: fetches at once.
    ///   - maxStalled: fetches of which nothing comes, beside them.
    init(limit: Int, maxStalled: Int = 0) {
        self.limit = max(1, limit)
        self.maxStalled = maxStalled
    }

    /// The user's demand beyond the limit, of users of whom nothing runs.
    private var reserve: Int { max(1, limit / 4) }

    mutating func add(_ id: ID, _ priority: Priority, _ owner: Owner = .init()) {
        count(owner) { $0.known += 1 }
        enqueue(id, priority, owner)
    }

    /// Moves a waiting fetch to those of a higher priority.
    mutating func promote(_ id: ID, to priority: Priority = .demand) {
        guard let entry = entries[id], priority < entry.priority else { return }
        switch entry.standing {
        case .waiting:
            stale += 1
            enqueue(id, priority, entry.owner)
            compact()
        case .running:
            if priority == .demand { runningAhead -= 1 }
            entries[id]?.priority = priority
        case .stalled: entries[id]?.priority = priority
        }
    }

    /// True when it was still waiting, and is gone now.
    mutating func removeWaiting(_ id: ID) -> Bool {
        guard let entry = entries[id], entry.standing == .waiting else { return false }
        entries[id] = nil
        count(entry.owner) { $0.known -= 1 }
        stale += 1
        compact()
        return true
    }

    /// It runs no more: its place is free.
    mutating func ended(_ id: ID) {
        guard let entry = entries[id], entry.standing != .waiting else { return }
        leave(entry)
        entries[id] = nil
        count(entry.owner) { $0.known -= 1 }
    }

    /// Nothing comes of a running fetch: its place is free while that is so, if there are not too many such.
    ///
    /// - Returns: whether a place was freed.
    mutating func stall(_ id: ID) -> Bool {
        guard let entry = entries[id], entry.standing == .running, stalled < maxStalled,
            users[entry.owner.user]?.stalled ?? 0 < max(1, maxStalled / 2)
        else { return false }
        leave(entry)
        entries[id]?.standing = .stalled
        stalled += 1
        count(entry.owner) { $0.stalled += 1 }
        return true
    }

    /// Something comes of a stalled fetch: it counts again, also beyond the limit.
    mutating func resume(_ id: ID) {
        guard let entry = entries[id], entry.standing == .stalled else { return }
        leave(entry)
        entries[id]?.standing = .running
        enter(entry)
    }

    /// Numbers that are kept of those that wait, and of those that wait no more.
    var waitingNumbers: Int {
        waiting.reduce(0) { $1.users.values.reduce($0) { $0 + $1.count } }
    }

    /// The next fetch to run, counted as running from now on.
    mutating func next() -> ID? {
        for priority in Priority.inTurn(turns + 1) where hasRoom(priority) {
            guard let id = take(priority, isBeyond: false) else { continue }
            turns += 1
            return id
        }
        // A user of whom nothing runs need not wait for others.
        return running < limit + reserve ? take(.demand, isBeyond: true) : nil
    }

    // MARK: Inside

    /// Places of the limit are kept free of prefetches and background work, so that demand never queues behind them.
    private func hasRoom(_ priority: Priority) -> Bool {
        running < limit && (priority == .demand || runningAhead < max(1, limit * 3 / 4))
    }

    private mutating func enqueue(_ id: ID, _ priority: Priority, _ owner: Owner) {
        lastPlace += 1
        entries[id] = Entry(priority: priority, owner: owner, place: lastPlace)
        let index = priority.rawValue
        if waiting[index].users[owner.user] == nil { waiting[index].turns.append(owner.user) }
        waiting[index].users[owner.user, default: .init()].add(Place(id: id, number: lastPlace), of: owner)
    }

    /// - Parameter isBeyond: of a user of whom nothing runs.
    private mutating func take(_ priority: Priority, isBeyond: Bool) -> ID? {
        let index = priority.rawValue
        for _ in 0..<waiting[index].turns.count {
            guard let user = waiting[index].turns.popFirst() else { return nil }
            let isLeftOut = isBeyond ? users[user]?.running ?? 0 > 0 : isFull(user)
            guard !isLeftOut, var places = waiting[index].users.removeValue(forKey: user) else {
                waiting[index].turns.append(user)
                continue
            }
            let id = nextPlace(&places)
            if !places.isEmpty {
                waiting[index].users[user] = places
                waiting[index].turns.append(user)
            }
            if let id, let entry = entries[id] {
                entries[id]?.standing = .running
                enter(entry)
                return id
            }
        }
        return nil
    }

    /// The user has as many places as one may have while there are others.
    private func isFull(_ user: User) -> Bool {
        users.count > 1 && users[user]?.running ?? 0 >= max(1, limit * 3 / 4)
    }

    private mutating func nextPlace(_ places: inout RoundRobin<Owner, Place>) -> ID? {
        let (files, most) = (files, files.count > 1 ? max(1, limit / 2) : .max)
        while let place = places.next({ files[$0]?.running ?? 0 < most }) {
            if entries[place.id]?.place == place.number, entries[place.id]?.standing == .waiting { return place.id }
            stale -= 1
        }
        return nil
    }

    private mutating func enter(_ entry: Entry) {
        running += 1
        if entry.priority != .demand { runningAhead += 1 }
        count(entry.owner) { $0.running += 1 }
    }

    /// Takes back what counts of a fetch that runs or is stalled.
    private mutating func leave(_ entry: Entry) {
        switch entry.standing {
        case .waiting: return
        case .running:
            running -= 1
            if entry.priority != .demand { runningAhead -= 1 }
            count(entry.owner) { $0.running -= 1 }
        case .stalled:
            stalled -= 1
            count(entry.owner) { $0.stalled -= 1 }
        }
    }

    private mutating func count(_ owner: Owner, _ change: (inout Book) -> Void) {
        change(&users[owner.user, default: .init()])
        if users[owner.user]?.known == 0 { users[owner.user] = nil }
        change(&files[owner, default: .init()])
        if files[owner]?.known == 0 { files[owner] = nil }
    }

    /// Forgets the numbers of those that wait no more, when they are more than the others.
    private mutating func compact() {
        guard stale > entries.count + 64 else { return }
        stale = 0
        let entries = entries
        for index in waiting.indices {
            for user in Array(waiting[index].users.keys) {
                waiting[index].users[user]?.removeAll { place in
                    entries[place.id].map { $0.place != place.number || $0.standing != .waiting } ?? true
                }
                if waiting[index].users[user]?.isEmpty ?? true { waiting[index].users[user] = nil }
            }
            let users = waiting[index].users
            waiting[index].turns.removeAll { users[$0] == nil }
        }
    }
}
