/// Starts the fetches that are needed, and cancels those that are not needed any more.
extension FillState {
    struct Issued {
        var hasStarted = false
        /// Whether some needed fetch was not started for lack of room.
        var isFull = false
    }

    /// Whether one more fetch of this priority may be started.
    func hasRoom(_ priority: Priority) -> Bool {
        fetches.active < limits.fetches
            && (priority == .demand || fetches.activeAhead < max(1, limits.fetches * 3 / 4))
    }

    /// Starts fetches for those granules of `wanted` that are absent and neither fetched, held nor reserved, up to the
    /// limit of fetches for one waiter. Fetches under way there with a lower priority are promoted.
    ///
    /// - Parameter group: the group that stands at the first granule of `wanted`; nil for read-ahead.
    @discardableResult
    mutating func issue(
        _ wanted: Range<Int>, _ priority: Priority, _ user: User, for group: ID?, _ actions: inout [Action]
    ) -> Issued {
        var issued = Issued()
        guard refusal == nil else { return issued }
        var (underWay, cursor) = (0, wanted.lowerBound)
        while cursor < wanted.upperBound, underWay < limits.fetchesPerWaiter,
            let granule = present.firstAbsent(in: cursor..<wanted.upperBound)
        {
            steps += 1
            if held.contains(granule) {
                cursor = held.firstAbsent(in: granule..<wanted.upperBound) ?? wanted.upperBound
                continue
            }
            let index = fetches.firstIndex(endingAfter: granule)
            let next = index < fetches.count ? fetches[index: index] : nil
            if let next, next.granules.contains(granule) {
                if fetches.promote(index, priority) { actions.append(.promote(fetch: next.id, priority)) }
                if !next.isCancelled { underWay += 1 }
                cursor = next.granules.upperBound
                continue
            }
            if let end = exclusiveWrites.end(at: granule) {
                cursor = end
                continue
            }
            if doubtful.contains(granule) {
                guard group != nil, granule == wanted.lowerBound else { break }
                doubtful.remove(granule..<granule + 1)
            }
            guard hasRoom(priority) else {
                issued.isFull = true
                break
            }
            let end = endOfGap(granule, before: min(wanted.upperBound, next?.granules.lowerBound ?? .max))
            let id = nextID()
            fetches.insert(.init(id: id, granules: granule..<end, priority: priority, group: group))
            actions.append(.start(fetch: id, granules: granule..<end, priority, user))
            (issued.hasStarted, underWay, cursor) = (true, underWay + 1, end)
        }
        return issued
    }

    /// Where a fetch that begins at `granule` has to end: at the fetch size, at `limit`, or before the next granule
    /// that is present, held, doubtful or reserved.
    private func endOfGap(_ granule: Int, before limit: Int) -> Int {
        let (end, overflow) = granule.addingReportingOverflow(limits.fetchGranules)
        let behind =
            granule + 1..<max(granule + 1, min(overflow ? .max : end, limit, exclusiveWrites.start(after: granule)))
        let obstacles = [present, held, doubtful].map { $0.firstRun(in: behind)?.lowerBound ?? behind.upperBound }
        return obstacles.min() ?? behind.upperBound
    }

    /// To be called after waiters of `granules` were removed. Cancels fetches that were started for waiters and that no
    /// waiter wants any more.
    mutating func cancelUnneeded(_ granules: Range<Int>, _ actions: inout [Action]) {
        for index in fetches.indices(touching: granules) {
            steps += 1
            let fetch = fetches[index: index]
            if fetch.group != nil, !isWanted(fetch.granules) { cancel(fetch: fetch.id, &actions) }
        }
    }

    mutating func cancel(fetch id: ID, _ actions: inout [Action]) {
        if fetches.cancel(id) { actions.append(.cancel(fetch: id)) }
    }
}
