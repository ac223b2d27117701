/// The fetches of one file. They are disjoint, kept in the order of their granules, and found by binary search. Pure.
struct FetchList: Sendable {
    struct Fetch: Sendable {
        let id: FillState.ID
        /// The granules that have not arrived yet; never empty. The end of the range never changes.
        var granules: Range<Int>
        var priority: FillState.Priority
        /// The group of waiters that the fetch was started for; the group may be gone by now. Nil for read-ahead, which
        /// has no waiter.
        let group: FillState.ID?
        var isCancelled = false
    }

    private var list: [Fetch] = []
    private var ends: [FillState.ID: Int] = [:]
    /// How many fetches are not cancelled.
    private(set) var active = 0
    /// How many of the active fetches have a lower priority than demand.
    private(set) var activeAhead = 0

    var isEmpty: Bool { list.isEmpty }
    var count: Int { list.count }
    var ids: [FillState.ID] { list.map(\.id) }

    subscript(id: FillState.ID) -> Fetch? { index(of: id).map { list[$0] } }
    subscript(index index: Int) -> Fetch { list[index] }

    mutating func insert(_ fetch: Fetch) {
        list.insert(fetch, at: firstIndex(endingAfter: fetch.granules.lowerBound))
        ends[fetch.id] = fetch.granules.upperBound
        count(fetch, 1)
    }

    mutating func remove(_ id: FillState.ID) -> Fetch? {
        guard let index = index(of: id) else { return nil }
        ends[id] = nil
        let fetch = list.remove(at: index)
        if !fetch.isCancelled { count(fetch, -1) }
        return fetch
    }

    /// Notes that everything before `granule` has arrived. When that completes the fetch, the fetch is removed and
    /// returned.
    mutating func advance(_ id: FillState.ID, to granule: Int) -> Fetch? {
        guard let index = index(of: id) else { return nil }
        if granule >= list[index].granules.upperBound { return remove(id) }
        list[index].granules = granule..<list[index].granules.upperBound
        return nil
    }

    /// Marks the fetch as cancelled. False when it was cancelled before, or has ended.
    mutating func cancel(_ id: FillState.ID) -> Bool {
        guard let index = index(of: id), !list[index].isCancelled else { return false }
        count(list[index], -1)
        list[index].isCancelled = true
        return true
    }

    /// Raises the priority of the fetch at `index`. False when its priority is that high already, or when it is
    /// cancelled.
    mutating func promote(_ index: Int, _ priority: FillState.Priority) -> Bool {
        guard priority < list[index].priority, !list[index].isCancelled else { return false }
        count(list[index], -1)
        list[index].priority = priority
        count(list[index], 1)
        return true
    }

    /// The index of the first fetch that ends after `granule`; ``count`` when there is none.
    func firstIndex(endingAfter granule: Int) -> Int {
        var (low, high) = (0, list.count)
        while low < high {
            let middle = (low + high) / 2
            if list[middle].granules.upperBound > granule { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// The indices of the fetches that overlap `granules`.
    func indices(touching granules: Range<Int>) -> Range<Int> {
        let first = firstIndex(endingAfter: granules.lowerBound)
        var end = first
        while end < list.count, list[end].granules.lowerBound < granules.upperBound { end += 1 }
        return first..<end
    }

    private func index(of id: FillState.ID) -> Int? { ends[id].map { firstIndex(endingAfter: $0 - 1) } }

    private mutating func count(_ fetch: Fetch, _ change: Int) {
        active += change
        if fetch.priority != .demand { activeAhead += change }
    }
}
