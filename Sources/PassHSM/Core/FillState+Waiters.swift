/// The waiters of a file, in groups.
extension FillState {
    /// Adds a waiter to the group at `stand`. Returns the group's number.
    mutating func join(_ id: ID, _ waiter: Waiter, _ stand: Int, _ priority: Priority) -> ID {
        waiters[id] = waiter
        begins.insert(waiter.granules.lowerBound)
        ends.insert(waiter.granules.upperBound)
        steps += 1
        return groups.add(id, end: waiter.granules.upperBound, stand, priority, newID: nextID)
    }

    /// Raises a waiter's priority. The waiter also stays in its former group; the first of the two groups to get there
    /// completes it.
    package mutating func promote(_ id: ID, to priority: Priority, _ actions: inout [Action]) {
        guard let waiter = waiters[id], let stand = present.firstAbsent(in: waiter.granules) else { return }
        steps += 1
        let group = groups.add(id, end: waiter.granules.upperBound, stand, priority, newID: nextID)
        let wanted = stand..<min(waiter.granules.upperBound, layout.count)
        if issue(wanted, priority, waiter.user, for: group, &actions).isFull { enqueue(group) }
    }

    /// Removes a waiter; nil when there is no such waiter.
    mutating func removeWaiter(_ id: ID) -> Waiter? {
        guard let waiter = waiters.removeValue(forKey: id) else { return nil }
        steps += 1
        begins.remove(waiter.granules.lowerBound)
        ends.remove(waiter.granules.upperBound)
        if waiters.isEmpty {
            groups.removeAll()
            needy = needy.map { _ in .init() }
            doubtful = GranuleSet()
        } else if groups.entries > 8 * waiters.count + 64 {
            steps += groups.entries
            groups.compact(waiters)
            let groups = groups
            for index in needy.indices { needy[index].removeAll { groups[$0]?.isQueued != true } }
        }
        return waiter
    }

    /// Whether any waiter wants one of `granules`.
    func isWanted(_ granules: Range<Int>) -> Bool {
        begins.count(below: granules.upperBound) > ends.count(below: granules.lowerBound + 1)
    }

    private mutating func complete(_ waiter: ID, _ error: FillError?, _ actions: inout [Action]) {
        if removeWaiter(waiter) != nil { actions.append(.complete(waiter: waiter, error)) }
    }

    /// Moves the groups that stand in `granules`, which have become present, to the next absent granule. Completes the
    /// waiters that have everything.
    mutating func moveGroups(standingIn granules: Range<Int>, _ actions: inout [Action]) {
        let standing = groups.standing(in: granules)
        steps += standing.steps
        guard !standing.groups.isEmpty else { return }
        // All these groups meet at the same granule.
        let next = present.firstAbsent(in: granules.upperBound..<max(granules.upperBound, layout.count)) ?? layout.count
        for group in standing.groups { advance(group, to: next, &actions) }
    }

    /// Completes every waiter of the groups that stand in `granules`.
    mutating func completeGroups(standingIn granules: Range<Int>, _ actions: inout [Action]) {
        let standing = groups.standing(in: granules)
        steps += standing.steps
        for group in standing.groups { end(group, nil, &actions) }
    }

    private mutating func advance(_ group: ID, to next: Int, _ actions: inout [Action]) {
        // Where the file was truncated, a waiter's range ends with the file.
        if next >= layout.count { return end(group, nil, &actions) }
        while let waiter = groups.popFirst(of: group, notBehind: next) {
            steps += 1
            complete(waiter, nil, &actions)
        }
        if let moved = groups.move(group, to: next) { enqueue(moved) }
    }

    /// Completes every waiter of the group.
    private mutating func end(_ group: ID, _ error: FillError?, _ actions: inout [Action]) {
        guard let group = groups.take(group) else { return }
        for bound in group.firsts.items { complete(bound.waiter, error, &actions) }
    }

    /// Notes that a fetch failed at granule `bad`, and fails the waiters that stand there.
    mutating func failed(at bad: Int, _ error: FillError, _ actions: inout [Action]) {
        // While all granules are held, no group moves: every waiter wants the whole file.
        if case .all = check { return failWaiters(error, &actions) }
        doubtful.insert(bad..<bad + 1)
        let standing = groups.standing(in: bad..<bad + 1)
        var wanted = bad..<bad + 1
        for id in standing.groups {
            guard let group = groups.take(id) else { continue }
            for bound in group.firsts.items {
                guard let waiter = removeWaiter(bound.waiter) else { continue }
                wanted = wanted.lowerBound..<max(wanted.upperBound, waiter.granules.upperBound)
                actions.append(.complete(waiter: bound.waiter, error))
            }
        }
        cancelUnneeded(wanted, &actions)
    }

    mutating func failWaiters(_ error: FillError, _ actions: inout [Action]) {
        for id in Array(waiters.keys) { complete(id, error, &actions) }
        cancelUnneeded(0..<layout.count, &actions)
    }

    // MARK: Turns

    /// Queues the group for a fetch, unless it is queued already.
    mutating func enqueue(_ id: ID) {
        guard let group = groups[id], !group.isQueued else { return }
        guard let last = groups.last(of: id, waiters) else {
            _ = groups.take(id)
            return
        }
        steps += 1
        groups.setQueued(id, true)
        needy[group.priority.rawValue].add(id, of: last.user)
    }

    /// Queues the groups that stand in `granules`, which no fetch brings any more.
    mutating func enqueue(standingIn granules: Range<Int>) {
        var range = granules
        // While all granules are held, no group moves: all stand at the beginning.
        if case .all = check { range = 0..<Int.max }
        let standing = groups.standing(in: range)
        steps += standing.steps
        for group in standing.groups { enqueue(group) }
    }

    /// Lets the queued groups start fetches in turn, while there is room.
    mutating func startFetches(_ actions: inout [Action]) {
        while let id = nextGroup() {
            steps += 1
            guard let group = groups[id], group.isQueued else { continue }
            groups.setQueued(id, false)
            guard let last = groups.last(of: id, waiters) else {
                _ = groups.take(id)
                continue
            }
            let wanted = group.stand..<min(last.granules.upperBound, layout.count)
            if issue(wanted, group.priority, last.user, for: id, &actions).isFull { enqueue(id) }
        }
    }

    /// Demand comes first. Each fourth turn belongs to prefetches and each sixteenth to background work, so that
    /// neither starves: a thread may wait for a prefetch without the kernel telling so.
    private mutating func nextGroup() -> ID? {
        for priority in Priority.inTurn(turns + 1) where !needy[priority.rawValue].isEmpty && hasRoom(priority) {
            guard let id = needy[priority.rawValue].next() else { continue }
            turns += 1
            return id
        }
        return nil
    }
}

extension FillState.Priority {
    /// All priorities, in the order in which turn `number` tries them.
    static func inTurn(_ number: Int) -> [Self] {
        if number.isMultiple(of: 16) { return [.background, .demand, .prefetch] }
        return number.isMultiple(of: 4) ? [.prefetch, .demand, .background] : allCases
    }
}
