/// Decides which fetch runs next. At most `limit` fetches run at once, and users and files share them fairly. Pure. A
/// step takes constant time on average; passing over owners that may not start a fetch now costs time for each of them,
/// and they are few.
///
/// - Demand runs before prefetches, and prefetches run before background work. Each fourth turn belongs to prefetches
///   and each sixteenth to background work, so that neither starves. A quarter of the places is reserved for demand.
/// - Within a priority, users take turns, and within a user, the user's files take turns. While there are other users,
///   one user has at most three quarters of the places. While there are other files, one file has at most half of them.
///   A user without a running fetch gets a place beyond the limit, so that no user waits for another user's fetches to
///   end.
/// - A fetch that receives nothing is *stalled* (``stall(_:)``). It does not count against the limit, up to a second
///   limit, of which one user has at most half. Objects that hang therefore do not block other fetches.
struct FetchQueue<ID: Hashable & Sendable>: Sendable {
    typealias User = FillState.User
    typealias Priority = FillState.Priority

    /// The user and the file that a fetch belongs to.
    struct Owner: Hashable, Sendable {
        var user: User = 0
        var file: ObjectIdentifier?
    }

    private enum Standing { case waiting, running, stalled }

    private struct Entry {
        var priority: Priority
        let owner: Owner
        var standing = Standing.waiting
        /// The number of the fetch's current place in the queue. A place with an older number is stale.
        var place: UInt64
    }

    private struct QueuedFetch {
        let id: ID
        let number: UInt64
    }

    /// How many fetches one user or file has.
    private struct Book {
        var known = 0
        var running = 0
        var stalled = 0
    }

    /// The waiting fetches of one priority. Stale places stay in it until their turn comes or ``compact()`` removes
    /// them.
    private struct Waiting {
        var users: [User: RoundRobin<Owner, QueuedFetch>] = [:]
        var turns = Fifo<User>()
    }

    private let limit: Int
    private let maxStalled: Int
    private var entries: [ID: Entry] = [:]
    private var waiting = [Waiting](repeating: .init(), count: Priority.allCases.count)
    private var users: [User: Book] = [:]
    private var files: [Owner: Book] = [:]
    /// Running fetches that count against the limit, and how many of these have a lower priority than demand.
    private var running = 0
    private var runningAhead = 0
    private var stalled = 0
    private var turns = 0
    private var lastPlace: UInt64 = 0
    /// How many places in the queues are stale.
    private var stale = 0

    /// - Parameters:
    ///   - limit: fetches that run at once.
    ///   - maxStalled: stalled fetches that may exist beside them.
    init(limit: Int, maxStalled: Int = 0) {
        self.limit = max(1, limit)
        self.maxStalled = maxStalled
    }

    /// Places beyond the limit, for demand of users that have no running fetch.
    private var reserve: Int { max(1, limit / 4) }

    mutating func add(_ id: ID, _ priority: Priority, _ owner: Owner = .init()) {
        count(owner) { $0.known += 1 }
        enqueue(id, priority, owner)
    }

    /// Raises the priority of a fetch. A waiting fetch moves to the queue of the new priority.
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

    /// Removes a fetch that has not started. False when it runs already, or is unknown.
    mutating func removeWaiting(_ id: ID) -> Bool {
        guard let entry = entries[id], entry.standing == .waiting else { return false }
        entries[id] = nil
        count(entry.owner) { $0.known -= 1 }
        stale += 1
        compact()
        return true
    }

    /// Notes that a running or stalled fetch has ended. Its place is free.
    mutating func ended(_ id: ID) {
        guard let entry = entries[id], entry.standing != .waiting else { return }
        leave(entry)
        entries[id] = nil
        count(entry.owner) { $0.known -= 1 }
    }

    /// Marks a running fetch as stalled, which frees its place until ``resume(_:)``. Does nothing when there are too
    /// many stalled fetches already.
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

    /// Notes that a stalled fetch received something. It counts against the limit again, even if that exceeds the
    /// limit.
    mutating func resume(_ id: ID) {
        guard let entry = entries[id], entry.standing == .stalled else { return }
        leave(entry)
        entries[id]?.standing = .running
        enter(entry)
    }

    /// How many places the queues hold, stale ones included.
    var waitingNumbers: Int {
        waiting.reduce(0) { $1.users.values.reduce($0) { $0 + $1.count } }
    }

    /// Takes the next fetch that may run. It counts as running from now on.
    mutating func next() -> ID? {
        for priority in Priority.inTurn(turns + 1) where hasRoom(priority) {
            guard let id = take(priority, isBeyond: false) else { continue }
            turns += 1
            return id
        }
        // A user without a running fetch need not wait for others.
        return running < limit + reserve ? take(.demand, isBeyond: true) : nil
    }

    // MARK: Inside

    /// Prefetches and background work leave a quarter of the places free, so that demand never queues behind them.
    private func hasRoom(_ priority: Priority) -> Bool {
        running < limit && (priority == .demand || runningAhead < max(1, limit * 3 / 4))
    }

    private mutating func enqueue(_ id: ID, _ priority: Priority, _ owner: Owner) {
        lastPlace += 1
        entries[id] = Entry(priority: priority, owner: owner, place: lastPlace)
        let index = priority.rawValue
        if waiting[index].users[owner.user] == nil { waiting[index].turns.append(owner.user) }
        waiting[index].users[owner.user, default: .init()].add(QueuedFetch(id: id, number: lastPlace), of: owner)
    }

    /// - Parameter isBeyond: takes only from users that have no running fetch.
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

    /// Whether the user has as many places as one user may have while there are others.
    private func isFull(_ user: User) -> Bool {
        users.count > 1 && users[user]?.running ?? 0 >= max(1, limit * 3 / 4)
    }

    private mutating func nextPlace(_ places: inout RoundRobin<Owner, QueuedFetch>) -> ID? {
        let (files, maxRunning) = (files, files.count > 1 ? max(1, limit / 2) : .max)
        while let place = places.next({ files[$0]?.running ?? 0 < maxRunning }) {
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

    /// Uncounts a fetch that runs or is stalled.
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

    /// Removes stale places once they outnumber the live ones.
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
