/// Those who wait, in groups.
extension FillState {
    /// Adds a waiter to the group at `stand`: its number.
    mutating func join(_ id: ID, _ waiter: Waiter, _ stand: Int, _ priority: Priority) -> ID {
        waiters[id] = waiter
        begins.insert(waiter.granules.lowerBound)
        ends.insert(waiter.granules.upperBound)
        steps += 1
        return groups.add(id, end: waiter.granules.upperBound, stand, priority, newID: nextID)
    }

    /// The waiter is more urgent than it was thought to be. It stays in its former group too, and is finished by the first.
    package mutating func promote(_ id: ID, to priority: Priority, _ actions: inout [Action]) {
        guard let waiter = waiters[id], let stand = present.firstAbsent(in: waiter.granules) else { return }
        steps += 1
        let group = groups.add(id, end: waiter.granules.upperBound, stand, priority, newID: nextID)
        let wanted = stand..<min(waiter.granules.upperBound, layout.count)
        if issue(wanted, priority, waiter.user, for: group, &actions).isFull { enqueue(group) }
    }

    /// Nil when it does not wait.
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

    /// Whether somebody waits for one of `granules`.
    func isWanted(_ granules: Range<Int>) -> Bool {
        begins.count(below: granules.upperBound) > ends.count(below: granules.lowerBound + 1)
    }

    private mutating func finish(_ waiter: ID, _ error: FillError?, _ actions: inout [Action]) {
        if removeWaiter(waiter) != nil { actions.append(.finish(waiter: waiter, error)) }
    }

    /// `granules` have become present: who stands there moves on, or has everything.
    mutating func moveGroups(standingIn granules: Range<Int>, _ actions: inout [Action]) {
        let standing = groups.standing(in: granules)
        steps += standing.steps
        guard !standing.groups.isEmpty else { return }
        // They all meet there.
        let next = present.firstAbsent(in: granules.upperBound..<max(granules.upperBound, layout.count)) ?? layout.count
        for group in standing.groups { advance(group, to: next, &actions) }
    }

    /// Everything is there for those who stand in `granules`.
    mutating func finishGroups(standingIn granules: Range<Int>, _ actions: inout [Action]) {
        let standing = groups.standing(in: granules)
        steps += standing.steps
        for group in standing.groups { end(group, nil, &actions) }
    }

    private mutating func advance(_ group: ID, to next: Int, _ actions: inout [Action]) {
        // Of those whose range was cut off with the file, the end is the file's.
        if next >= layout.count { return end(group, nil, &actions) }
        while let waiter = groups.popFirst(of: group, notBehind: next) {
            steps += 1
            finish(waiter, nil, &actions)
        }
        if let moved = groups.move(group, to: next) { enqueue(moved) }
    }

    /// Answers everybody in the group.
    private mutating func end(_ group: ID, _ error: FillError?, _ actions: inout [Action]) {
        guard let group = groups.take(group) else { return }
        for bound in group.firsts.items { finish(bound.waiter, error, &actions) }
    }

    /// A fetch failed at granule `bad`.
    mutating func failed(at bad: Int, _ error: FillError, _ actions: inout [Action]) {
        // Nobody moves while everything is held: all wait for all of it.
        if case .all = check { return failWaiters(error, &actions) }
        doubtful.insert(bad..<bad + 1)
        let standing = groups.standing(in: bad..<bad + 1)
        var wanted = bad..<bad + 1
        for id in standing.groups {
            guard let group = groups.take(id) else { continue }
            for bound in group.firsts.items {
                guard let waiter = removeWaiter(bound.waiter) else { continue }
                wanted = wanted.lowerBound..<max(wanted.upperBound, waiter.granules.upperBound)
                actions.append(.finish(waiter: bound.waiter, error))
            }
        }
        cancelUnneeded(wanted, &actions)
    }

    mutating func failWaiters(_ error: FillError, _ actions: inout [Action]) {
        for id in Array(waiters.keys) { finish(id, error, &actions) }
        cancelUnneeded(0..<layout.count, &actions)
    }

    // MARK: Turns

    /// The group may need a fetch.
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

    /// `granules` are on their way no more.
    mutating func enqueue(standingIn granules: Range<Int>) {
        var range = granules
        // Nobody moves while everything is held: all stand at the beginning.
        if case .all = check { range = 0..<Int.max }
        let standing = groups.standing(in: range)
        steps += standing.steps
        for group in standing.groups { enqueue(group) }
    }

    /// Lets groups start fetches while there is room, in turn.
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

    /// Demand first; but each fourth turn is the prefetches', and each sixteenth the background's, so that they come on
    /// whatever the demand: somebody may wait for a prefetch whom the kernel does not tell of.
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
    /// All of them, in the order in which they come to a turn.
    static func inTurn(_ number: Int) -> [Self] {
        if number.isMultiple(of: 16) { return [.background, .demand, .prefetch] }
        return number.isMultiple(of: 4) ? [.prefetch, .demand, .background] : allCases
    }
}
