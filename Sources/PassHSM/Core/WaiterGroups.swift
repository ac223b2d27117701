/// Those who wait for content of one file, in groups: all whose first missing granule is the same. Pure.
///
/// A waiter that is gone may be left in its group, under its number, until there are more such than others.
struct WaiterGroups: Sendable {
    typealias ID = FillState.ID

    /// Where the range of a waiter ends.
    struct Bound: Comparable, Sendable {
        /// The end, or its negative.
        let key: Int
        let waiter: ID

        static func < (left: Self, right: Self) -> Bool { (left.key, left.waiter) < (right.key, right.waiter) }
    }

    struct Group: Sendable {
        /// The first granule that is not present of all their ranges.
        var stand: Int
        let priority: FillState.Priority
        /// The one whose range ends first comes first.
        var firsts = Heap<Bound>()
        /// The one whose range ends last comes first.
        var lasts = Heap<Bound>()
        /// It is in turn for a fetch.
        var isQueued = false
    }

    private(set) var groups: [ID: Group] = [:]
    private var stands = [[Int: ID]](repeating: [:], count: FillState.Priority.allCases.count)
    /// Numbers of waiters in all heaps together.
    private(set) var entries = 0

    var isEmpty: Bool { groups.isEmpty }
    subscript(id: ID) -> Group? { groups[id] }

    /// Adds a waiter to the group at `stand`, which is made when there is none: its number.
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

    /// The groups that stand at one of `granules`; the steps that it took to find them are the fewer of both.
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

    /// The waiter of the group whose range ends first, if that is not behind `granule`; it is taken out.
    mutating func popFirst(of id: ID, notBehind granule: Int) -> ID? {
        guard let first = groups[id]?.firsts.first, first.key <= granule else { return nil }
        groups[id]?.firsts.pop()
        entries -= 1
        return first.waiter
    }

    /// The waiter of the group whose range ends last, of those that are not gone; nil when there is none.
    mutating func last(of id: ID, _ waiters: [ID: FillState.Waiter]) -> FillState.Waiter? {
        while let last = groups[id]?.lasts.first {
            if let waiter = waiters[last.waiter] { return waiter }
            groups[id]?.lasts.pop()
            entries -= 1
        }
        return nil
    }

    /// The group stands at `stand` now, together with those that do already: the number of what has become of it; nil when it is
    /// empty.
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
        // The larger one keeps its number, under which fetches know it.
        let isLarger = group.firsts.count > merged.firsts.count
        groups[other] = nil
        merged.firsts.merge(group.firsts)
        merged.lasts.merge(group.lasts)
        if isLarger { merged.isQueued = group.isQueued }
        stands[index][stand] = isLarger ? id : other
        groups[isLarger ? id : other] = merged
        return isLarger ? id : other
    }

    /// Takes a group out.
    mutating func take(_ id: ID) -> Group? {
        guard let group = groups.removeValue(forKey: id) else { return nil }
        entries -= group.firsts.count + group.lasts.count
        stands[group.priority.rawValue][group.stand] = nil
        return group
    }

    mutating func setQueued(_ id: ID, _ isQueued: Bool) { groups[id]?.isQueued = isQueued }

    /// Forgets those who are gone.
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
