/// Exclusive writes: local changes, which exclude fetches of the same granules.
extension FillState {
    /// Reserves `granules` for a local change: no fetch touches them until ``endExclusiveWrite(_:present:_:)``. With
    /// `cancelFetches`, fetches under way there are cancelled instead of waited for.
    ///
    /// - Returns: true when the exclusive write is granted at once. Otherwise a `.grant` action for `id` grants it
    /// later.
    package mutating func beginExclusiveWrite(
        _ id: ID, _ granules: Range<Int>, cancelFetches: Bool, _ actions: inout [Action]
    ) -> Bool {
        guard exclusiveWrites.add(.init(id: id, granules: granules, cancelsFetches: cancelFetches)) else {
            return false
        }
        let isGranted = tryGrant(exclusiveWrites.first.count - 1, &actions)
        // The fetches that it cancels leave room for others.
        startFetches(&actions)
        return isGranted
    }

    /// Ends a granted exclusive write. `granules` hold local content now.
    package mutating func endExclusiveWrite(_ id: ID, present granules: Range<Int>, _ actions: inout [Action]) {
        let reserved = exclusiveWrites.remove(id)
        becamePresent(granules.clamped(to: 0..<layout.count), &actions)
        startCheck(&actions)
        writeEnded(reserved ?? 0..<0, &actions)
    }

    mutating func writeEnded(_ granules: Range<Int>, _ actions: inout [Action]) {
        grantWrites(&actions)
        enqueue(standingIn: granules)
        startFetches(&actions)
    }

    /// Grants every exclusive write that nothing stands in the way of any more.
    mutating func grantWrites(_ actions: inout [Action]) {
        for index in exclusiveWrites.first.indices where !exclusiveWrites.first[index].isGranted {
            if tryGrant(index, &actions) { actions.append(.grant(write: exclusiveWrites.first[index].id)) }
        }
        while let index = exclusiveWrites.admit() {
            if tryGrant(index, &actions) { actions.append(.grant(write: exclusiveWrites.first[index].id)) }
        }
    }

    /// Grants the exclusive write at `index` if no fetch and no earlier exclusive write overlaps it. Otherwise cancels
    /// the overlapping fetches, if the exclusive write asks for that.
    private mutating func tryGrant(_ index: Int, _ actions: inout [Action]) -> Bool {
        steps += 1
        let granules = exclusiveWrites.first[index].granules
        let inTheWay = fetches.indices(touching: granules)
        if inTheWay.isEmpty && exclusiveWrites.isFree(index) {
            exclusiveWrites.first[index].isGranted = true
            unhold(granules)
            return true
        }
        if exclusiveWrites.first[index].cancelsFetches {
            for id in inTheWay.map({ fetches[index: $0].id }) { cancel(fetch: id, &actions) }
        }
        return false
    }
}
