/// What is asked for, and what is not needed any more.
extension FillState {
    struct Issued {
        var hasStarted = false
        /// There was no room for all that was needed.
        var isFull = false
    }

    /// There may be one more fetch of the priority.
    func hasRoom(_ priority: Priority) -> Bool {
        fetches.active < limits.fetches
            && (priority == .demand || fetches.activeAhead < max(1, limits.fetches * 3 / 4))
    }

    /// Starts fetches for the absent granules of `wanted` that nothing else holds, as many as one waiter may have; those of
    /// lower priority that are under way there are promoted.
    ///
    /// - Parameter group: that stands at the first of `wanted`; nil: the read-ahead.
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
            if let end = claims.end(at: granule) {
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

    /// Where a fetch that begins at `granule` ends at the latest.
    private func endOfGap(_ granule: Int, before limit: Int) -> Int {
        let (most, overflow) = granule.addingReportingOverflow(limits.fetchGranules)
        let behind = granule + 1..<max(granule + 1, min(overflow ? .max : most, limit, claims.start(after: granule)))
        let obstacles = [present, held, doubtful].map { $0.firstRun(in: behind)?.lowerBound ?? behind.upperBound }
        return obstacles.min() ?? behind.upperBound
    }

    /// After waiters of `granules` went: cancels the fetches that were made for them and that nobody else waits for.
    mutating func cancelUnneeded(_ granules: Range<Int>, _ actions: inout [Action]) {
        for index in fetches.indices(touching: granules) {
            steps += 1
            let fetch = fetches[index: index]
            if fetch.group != nil, !isWanted(fetch.granules) { cancel(fetch.id, &actions) }
        }
    }

    mutating func cancel(_ id: ID, _ actions: inout [Action]) {
        if fetches.cancel(id) { actions.append(.cancel(fetch: id)) }
    }
}
