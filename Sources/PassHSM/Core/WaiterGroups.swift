/// The waiters of one file in groups: all waiters whose first missing granule is the same. Pure.
///
/// The number of a waiter that is gone may stay in its group until such numbers outnumber the others.
struct WaiterGroups: Sendable {
    typealias ID = FillState.ID

    /// Where the range of a waiter ends.
    struct Bound: Comparable, Sendable {
        /// The end of the range, or its negative for the heap that takes the last end first.
        let key: Int
        let waiter: ID

        static func < (left: Self, right: Self) -> Bool { (left.key, left.waiter) < (right.key, right.waiter) }
    }

    struct Group: Sendable {
        /// The granule at which all waiters of the group stand.
        var stand: Int
        let priority: FillState.Priority
        /// Ordered so that the range that ends first comes first.
        var firsts = Heap<Bound>()
        /// Ordered so that the range that ends last comes first.
        var lasts = Heap<Bound>()
        /// Whether the group is queued for a fetch.
        var isQueued = false
    }

    private(set) var groups: [ID: Group] = [:]
    private var stands = [[Int: ID]](repeating: [:], count: FillState.Priority.allCases.count)
    /// How many entries all heaps have together.
    private(set) var entries = 0

    var isEmpty: Bool { groups.isEmpty }
    subscript(id: ID) -> Group? { groups[id] }

    /// Adds a waiter to the group at `stand`, and makes the group when there is none. Returns its number.
    mutating func add(
        _ waiter: ID, end: Int, _ stand: Int, _ priority: FillState.Priority, newID: () -> ID
    ) -> ID {
        let id = stands[priority.rawValue][stand] ?? newID()
        stands[priority.rawValue][stand] = id
        groups[id, default: Group(stand: stand, priority: priority)].firsts.push(Bound(key: end, waiter: waiter))
        groups[id]?.lasts.push(Bound(key: -end, waiter: waiter))
        entries += 2
        return id
    }

    /// The groups that stand at one of `granules`, and the steps that it took to find them. It looks at the granules or
    /// at the groups, whichever are fewer.
    func standing(in granules: Range<Int>) -> (groups: [ID], steps: Int) {
        var (found, steps): ([ID], Int) = ([], 0)
        for stands in stands where !stands.isEmpty {
            steps += min(granules.count, stands.count)
            if granules.count <= stands.count {
                for granule in granules { if let id = stands[granule] { found.append(id) } }
            } else {
                for (granule, id) in stands where granules.contains(granule) { found.append(id) }
            }
        }
        return (found, steps)
    }

    /// Removes and returns the waiter whose range ends first, if that end is not after `granule`.
    mutating func popFirst(of id: ID, notBehind granule: Int) -> ID? {
        guard let first = groups[id]?.firsts.first, first.key <= granule else { return nil }
        groups[id]?.firsts.pop()
        entries -= 1
        return first.waiter
    }

    /// The waiter whose range ends last, of those that still wait; nil when there is none.
    mutating func last(of id: ID, _ waiters: [ID: FillState.Waiter]) -> FillState.Waiter? {
        while let last = groups[id]?.lasts.first {
            if let waiter = waiters[last.waiter] { return waiter }
            groups[id]?.lasts.pop()
            entries -= 1
        }
        return nil
    }

    /// Moves the group to `stand`, and merges it with a group that stands there already. Returns the number of the
    /// resulting group; nil when it is empty.
    mutating func move(_ id: ID, to stand: Int) -> ID? {
        guard let group = take(id), !group.firsts.isEmpty else { return nil }
        let index = group.priority.rawValue
        entries += group.firsts.count + group.lasts.count
        guard let other = stands[index][stand], var merged = groups[other] else {
            stands[index][stand] = id
            groups[id] = group
            groups[id]?.stand = stand
            return id
        }
        // The larger group keeps its number, by which fetches know it.
        let isLarger = group.firsts.count > merged.firsts.count
        groups[other] = nil
        merged.firsts.merge(group.firsts)
        merged.lasts.merge(group.lasts)
        if isLarger { merged.isQueued = group.isQueued }
        stands[index][stand] = isLarger ? id : other
        groups[isLarger ? id : other] = merged
        return isLarger ? id : other
    }

    /// Removes and returns a group.
    mutating func take(_ id: ID) -> Group? {
        guard let group = groups.removeValue(forKey: id) else { return nil }
        entries -= group.firsts.count + group.lasts.count
        stands[group.priority.rawValue][group.stand] = nil
        return group
    }

    mutating func setQueued(_ id: ID, _ isQueued: Bool) { groups[id]?.isQueued = isQueued }

    /// Removes the numbers of waiters that are gone.
    mutating func compact(_ waiters: [ID: FillState.Waiter]) {
        for (id, group) in groups {
            let live = group.firsts.items.filter { waiters[$0.waiter] != nil }
            guard !live.isEmpty else {
                _ = take(id)
                continue
            }
            entries += 2 * live.count - group.firsts.count - group.lasts.count
            groups[id]?.firsts = Heap(live)
            groups[id]?.lasts = Heap(live.map { Bound(key: -$0.key, waiter: $0.waiter) })
        }
    }

    mutating func removeAll() { self = Self() }
}
