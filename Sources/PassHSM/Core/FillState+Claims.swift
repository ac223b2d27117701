/// The claims of one file: ranges reserved for local changes. Pure.
///
/// At most ``maxFirst`` claims are examined one by one. Later ones wait in order of arrival until there is room among
/// these.
struct Claims: Sendable {
    typealias ID = FillState.ID

    struct Claim: Sendable {
        let id: ID
        let granules: Range<Int>
        let cancelsFetches: Bool
        var isGranted = false
    }

    private static let maxFirst = 16
    /// In order of arrival. Where claims overlap, the earlier one is granted first.
    var first: [Claim] = []
    private var order = Fifo<ID>()
    private var late: [ID: Claim] = [:]

    var isEmpty: Bool { first.isEmpty && late.isEmpty }

    /// Adds a claim. False when it has to wait for room among the first.
    mutating func add(_ claim: Claim) -> Bool {
        if first.count < Self.maxFirst, late.isEmpty {
            first.append(claim)
            return true
        }
        order.append(claim.id)
        late[claim.id] = claim
        return false
    }

    /// Moves the next waiting claim among the first, if there is room. Returns its index there.
    mutating func admit() -> Int? {
        while first.count < Self.maxFirst, let id = order.popFirst() {
            guard let claim = late.removeValue(forKey: id) else { continue }
            first.append(claim)
            return first.count - 1
        }
        return nil
    }

    /// Removes a claim that is not granted. Returns its granules, or an empty range for a claim that still waited for
    /// room; nil when there is no such claim.
    mutating func removePending(_ id: ID) -> Range<Int>? {
        if let index = first.firstIndex(where: { $0.id == id && !$0.isGranted }) {
            return first.remove(at: index).granules
        }
        return late.removeValue(forKey: id) == nil ? nil : 0..<0
    }

    mutating func removeAllPending() -> [ID] {
        defer {
            first.removeAll { !$0.isGranted }
            (late, order) = ([:], .init())
        }
        return first.filter { !$0.isGranted }.map(\.id) + late.keys
    }

    mutating func remove(_ id: ID) -> Range<Int>? {
        first.firstIndex { $0.id == id }.map { first.remove(at: $0).granules }
    }

    /// Whether no earlier claim overlaps the one at `index`.
    func isFree(_ index: Int) -> Bool { !first[..<index].contains { $0.granules.overlaps(first[index].granules) } }

    /// Where the claim that contains `granule` ends; nil when none contains it.
    func end(at granule: Int) -> Int? { first.first { $0.granules.contains(granule) }?.granules.upperBound }

    /// Where the first claim after `granule` begins; `Int.max` when there is none.
    func start(after granule: Int) -> Int {
        first.reduce(Int.max) { $1.granules.lowerBound > granule ? min($0, $1.granules.lowerBound) : $0 }
    }
}

/// Claims: local changes, which exclude fetches of the same granules.
extension FillState {
    /// Reserves `granules` for a local change: no fetch touches them until ``release(_:present:_:)``. With
    /// `cancelFetches`, fetches under way there are cancelled instead of waited for.
    ///
    /// - Returns: true when the claim is granted at once. Otherwise a `.grant` action for `id` grants it later.
    package mutating func claim(
        _ id: ID, _ granules: Range<Int>, cancelFetches: Bool, _ actions: inout [Action]
    ) -> Bool {
        guard claims.add(.init(id: id, granules: granules, cancelsFetches: cancelFetches)) else { return false }
        let isGranted = settle(claims.first.count - 1, &actions)
        // The fetches that it cancels leave room for others.
        startFetches(&actions)
        return isGranted
    }

    /// Ends a granted claim. `granules` hold local content now.
    package mutating func release(_ id: ID, present granules: Range<Int>, _ actions: inout [Action]) {
        let claimed = claims.remove(id)
        becamePresent(granules.clamped(to: 0..<layout.count), &actions)
        startCheck(&actions)
        claimEnded(claimed ?? 0..<0, &actions)
    }

    mutating func claimEnded(_ granules: Range<Int>, _ actions: inout [Action]) {
        grantClaims(&actions)
        enqueue(standingIn: granules)
        startFetches(&actions)
    }

    /// Grants every claim that nothing stands in the way of any more.
    mutating func grantClaims(_ actions: inout [Action]) {
        for index in claims.first.indices where !claims.first[index].isGranted {
            if settle(index, &actions) { actions.append(.grant(claim: claims.first[index].id)) }
        }
        while let index = claims.admit() {
            if settle(index, &actions) { actions.append(.grant(claim: claims.first[index].id)) }
        }
    }

    /// Grants the claim at `index` if no fetch and no earlier claim overlaps it. Otherwise cancels the overlapping
    /// fetches, if the claim asks for that.
    private mutating func settle(_ index: Int, _ actions: inout [Action]) -> Bool {
        steps += 1
        let granules = claims.first[index].granules
        let inTheWay = fetches.indices(touching: granules)
        if inTheWay.isEmpty && claims.isFree(index) {
            claims.first[index].isGranted = true
            unhold(granules)
            return true
        }
        if claims.first[index].cancelsFetches {
            for id in inTheWay.map({ fetches[index: $0].id }) { cancel(id, &actions) }
        }
        return false
    }
}
