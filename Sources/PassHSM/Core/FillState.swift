/// What is present of one file, what is on its way, and who waits for it: a pure state machine.
///
/// Methods change the state and append to `actions` what has to be done about it; nothing blocks, nothing is called. The
/// owner (``FillFile``) guards it with a lock and performs the actions after letting go of the lock.
///
/// A granule is *present*, or in exactly one *fetch*, or under a *claim* (a local change that excludes fills), or simply
/// absent. A present granule never becomes absent; truncation only lowers the layout's limit.
package struct FillState: Sendable {
    /// Numbers fetches, waiters and claims; unique within the process.
    package typealias ID = UInt64

    package enum Priority: Int, Comparable, Sendable {
        case demand, prefetch, background

        package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    package enum Action: Sendable {
        /// Ask the remote for `granules`; every started fetch is ended by ``FillState/fetchEnded(_:error:_:)``.
        case start(fetch: ID, granules: Range<Int>, Priority)
        case promote(fetch: ID)
        case cancel(fetch: ID)
        /// The range of a waiter is present, a claim is granted, or it failed.
        case finish(waiter: ID, FillError?)
        /// Find out whether the content is right as a whole; answered by ``FillState/checked(_:_:)``.
        case check
    }

    /// What has to wait until the content was found right as a whole.
    package enum Check: Sendable {
        /// Nothing: there is nothing to check it by.
        case none
        /// The granule that comes last: the file is not complete before.
        case last
        /// Every granule.
        case all
    }

    package struct Limits: Sendable {
        /// Granules that one fetch asks for at most.
        package var fetchGranules: Int
        /// Fetches that one waiter keeps under way at most.
        package var fetchesPerWaiter = 8
        /// Granules that read-ahead runs in front of a reader at most.
        package var readAheadGranules: Int

        package init(fetchGranules: Int, readAheadGranules: Int) {
            self.fetchGranules = max(1, fetchGranules)
            self.readAheadGranules = max(0, readAheadGranules)
        }
    }

    private struct Fetch {
        /// What is still to come.
        var granules: Range<Int>
        var priority: Priority
        var isCancelled = false
    }

    private struct Waiter {
        var granules: Range<Int>
        var priority: Priority
        /// See ``FillState/takeProgress(of:)``.
        var hasProgressed = false
    }

    private struct Claim {
        var id: ID
        var granules: Range<Int>
        var isGranted = false
    }

    package private(set) var layout: GranuleLayout
    package private(set) var present: GranuleSet
    /// In the lower file, and not present until the content as a whole was found right.
    private(set) var held = GranuleSet()
    private(set) var check: Check
    private var isChecking = false
    /// Why nothing will ever become present any more.
    private(set) var refusal: FillError?
    /// May change at any time.
    var limits: Limits
    private let nextID: @Sendable () -> ID
    private var fetches: [ID: Fetch] = [:]
    private var waiters: [ID: Waiter] = [:]
    /// In order of arrival: an earlier claim comes first.
    private var claims: [Claim] = []
    private var readAhead = ReadAhead()

    package init(
        layout: GranuleLayout, present: GranuleSet, limits: Limits, check: Check = .none, refusal: FillError? = nil,
        nextID: @escaping @Sendable () -> ID
    ) {
        self.layout = layout
        self.present = present
        self.limits = limits
        self.check = check
        self.refusal = refusal
        self.nextID = nextID
        switch check {
        case .none: break
        case .last: if isComplete, layout.count > 0 { hold(layout.count - 1..<layout.count) }
        case .all: swap(&self.present, &held)
        }
    }

    /// Every byte of the file can be read from the lower file.
    package var isComplete: Bool { present.count == layout.count }
    package var isIdle: Bool { fetches.isEmpty && waiters.isEmpty && claims.isEmpty && !isChecking }

    package func isPresent(_ range: Range<Int>) -> Bool { present.contains(layout.granules(touching: range)) }

    /// Counts a read for the read-ahead, and asks for what should come next.
    package mutating func noteRead(_ range: Range<Int>, _ actions: inout [Action]) {
        let granules = layout.granules(touching: range)
        guard refusal == nil, !granules.isEmpty, let ahead = readAhead.note(granules, most: limits.readAheadGranules)
        else { return }
        issue(ahead.clamped(to: 0..<layout.count), .prefetch, &actions)
    }

    package enum Wait: Sendable { case present, joined, missed }

    /// Registers `id` as waiting for `range`, and starts the fetches it needs. `.present`: nothing was registered.
    package mutating func wait(
        _ id: ID, for range: Range<Int>, _ priority: Priority, _ actions: inout [Action]
    ) -> Wait {
        var granules = layout.granules(touching: range)
        if present.contains(granules) { return .present }
        if let refusal {
            actions.append(.finish(waiter: id, refusal))
            return .joined
        }
        if case .all = check { granules = 0..<layout.count }
        waiters[id] = Waiter(granules: granules, priority: priority)
        startCheck(&actions)
        let started = issue(granules, priority, &actions)
        return started ? .missed : .joined
    }

    /// The waiter or claimant no longer waits; false when it was not waiting. Fetches that only it needed are cancelled.
    @discardableResult
    package mutating func abandon(_ id: ID, _ actions: inout [Action]) -> Bool {
        if let index = claims.firstIndex(where: { $0.id == id && !$0.isGranted }) {
            claims.remove(at: index)
            advance(&actions)
            return true
        }
        guard let waiter = waiters.removeValue(forKey: id) else { return false }
        cancelUnneeded(waiter.granules, &actions)
        return true
    }

    /// Whether something of what the waiter waits for has come since this was asked last, or is being checked.
    package mutating func takeProgress(of id: ID) -> Bool {
        guard let waiter = waiters[id] else { return false }
        waiters[id]?.hasProgressed = false
        return waiter.hasProgressed || isChecking
    }

    /// `granules` of the fetch were written to the lower file and can be read. With its last granule the fetch is over:
    /// whoever is told that the content is there finds nothing under way.
    package mutating func filled(_ id: ID, _ granules: Range<Int>, _ actions: inout [Action]) {
        if let end = fetches[id]?.granules.upperBound {
            fetches[id]?.granules = granules.upperBound..<end
            if granules.upperBound == end { fetches.removeValue(forKey: id) }
        }
        for (waiterID, waiter) in waiters where waiter.granules.overlaps(granules) {
            waiters[waiterID]?.hasProgressed = true
        }
        arrived(granules, &actions)
        if fetches[id] == nil { advance(&actions) }
    }

    /// The fetch will deliver no more; nothing when it has delivered everything. With an error, those who waited for the granule that it failed at fail; those who
    /// only waited for what would have come behind it ask again, so that one bad granule harms nobody else.
    package mutating func fetchEnded(_ id: ID, error: FillError?, _ actions: inout [Action]) {
        guard let fetch = fetches.removeValue(forKey: id) else { return }
        if let error, !fetch.isCancelled, !fetch.granules.isEmpty {
            let failed = waiters.filter { $0.value.granules.contains(fetch.granules.lowerBound) }
            for waiterID in failed.keys {
                waiters.removeValue(forKey: waiterID)
                actions.append(.finish(waiter: waiterID, error))
            }
            for waiter in failed.values { cancelUnneeded(waiter.granules, &actions) }
        }
        advance(&actions)
    }

    package enum Standing: Sendable { case wanted(Priority), cancelled }

    /// What has become of a started fetch; nil when it has ended.
    package func standing(of id: ID) -> Standing? {
        fetches[id].map { $0.isCancelled ? .cancelled : .wanted($0.priority) }
    }

    // MARK: Claims

    /// Reserves `granules` for a local change: no fetch touches them until ``release(_:present:_:)``.
    ///
    /// True: granted at once. False: a `.finish` action for `id` grants it later. With `cancelFetches`, fetches under way
    /// in the range are cancelled instead of waited for.
    package mutating func claim(
        _ id: ID, _ granules: Range<Int>, cancelFetches: Bool, _ actions: inout [Action]
    ) -> Bool {
        var claim = Claim(id: id, granules: granules)
        claim.isGranted = isFree(granules, before: claims.count)
        if claim.isGranted { held.remove(granules) }
        claims.append(claim)
        if !claim.isGranted && cancelFetches {
            for (fetchID, fetch) in fetches where fetch.granules.overlaps(granules) { cancel(fetchID, &actions) }
        }
        return claim.isGranted
    }

    /// Ends a granted claim; `granules` now hold what was written locally.
    package mutating func release(_ id: ID, present granules: Range<Int>, _ actions: inout [Action]) {
        claims.removeAll { $0.id == id }
        becamePresent(granules.clamped(to: 0..<layout.count), &actions)
        startCheck(&actions)
        advance(&actions)
    }

    /// The file was cut to `size` under a claim of everything from there on.
    package mutating func truncated(to size: Int, _ actions: inout [Action]) {
        layout.lowerLimit(to: size)
        present.remove(layout.count..<Int.max)
        held.remove(layout.count..<Int.max)
        for (id, waiter) in waiters {
            let granules = waiter.granules.clamped(to: 0..<layout.count)
            waiters[id]?.granules = granules
            if present.contains(granules) { finish(id, &actions) }
        }
    }

    /// Fails everyone who waits, and cancels every fetch.
    package mutating func failAll(_ error: FillError, _ actions: inout [Action]) {
        for id in waiters.keys { actions.append(.finish(waiter: id, error)) }
        waiters.removeAll()
        for claim in claims where !claim.isGranted { actions.append(.finish(waiter: claim.id, error)) }
        claims.removeAll { !$0.isGranted }
        for id in Array(fetches.keys) { cancel(id, &actions) }
    }

    // MARK: Inside

    mutating func hold(_ granules: Range<Int>) {
        present.remove(granules)
        held.insert(granules)
    }

    /// Asks for the check when everything is there, and nothing was found wrong.
    mutating func startCheck(_ actions: inout [Action]) {
        guard !isChecking, refusal == nil, !held.isEmpty, present.count + held.count == layout.count else { return }
        isChecking = true
        actions.append(.check)
    }

    mutating func endCheck(_ error: FillError?) {
        isChecking = false
        refusal = error
    }

    /// Nothing is held from now on: what was.
    mutating func release() -> [Range<Int>] {
        defer { held = GranuleSet() }
        check = .none
        return held.runs()
    }

    mutating func becamePresent(_ granules: Range<Int>, _ actions: inout [Action]) {
        guard !granules.isEmpty else { return }
        present.insert(granules)
        for (id, waiter) in waiters where waiter.granules.overlaps(granules) && present.contains(waiter.granules) {
            finish(id, &actions)
        }
    }

    private mutating func finish(_ waiter: ID, _ actions: inout [Action]) {
        waiters.removeValue(forKey: waiter)
        actions.append(.finish(waiter: waiter, nil))
    }

    /// After a waiter of `granules` went: cancels the fetches that were made for it and that nobody else waits for.
    private mutating func cancelUnneeded(_ granules: Range<Int>, _ actions: inout [Action]) {
        for (id, fetch) in fetches where fetch.granules.overlaps(granules) {
            let isNeeded =
                fetch.priority == .prefetch || waiters.values.contains { $0.granules.overlaps(fetch.granules) }
            if !isNeeded { cancel(id, &actions) }
        }
    }

    private mutating func cancel(_ id: ID, _ actions: inout [Action]) {
        guard fetches[id]?.isCancelled == false else { return }
        fetches[id]?.isCancelled = true
        actions.append(.cancel(fetch: id))
    }

    /// After something ended: grants claims whose turn it is, then lets waiters start their next fetches.
    private mutating func advance(_ actions: inout [Action]) {
        for index in claims.indices where !claims[index].isGranted && isFree(claims[index].granules, before: index) {
            claims[index].isGranted = true
            held.remove(claims[index].granules)
            actions.append(.finish(waiter: claims[index].id, nil))
        }
        for (_, waiter) in waiters.sorted(by: { $0.key < $1.key }) {
            issue(waiter.granules, waiter.priority, &actions)
        }
    }

    private func isFree(_ granules: Range<Int>, before index: Int) -> Bool {
        !fetches.values.contains { $0.granules.overlaps(granules) }
            && !claims[..<index].contains { $0.granules.overlaps(granules) }
    }

    /// Starts fetches for the absent granules of `wanted` that nothing else holds; true when there were any.
    @discardableResult
    private mutating func issue(_ wanted: Range<Int>, _ priority: Priority, _ actions: inout [Action]) -> Bool {
        guard refusal == nil else { return false }
        var started = false
        var underWay = fetches.values.count { $0.granules.overlaps(wanted) }
        var cursor = wanted.lowerBound
        while cursor < wanted.upperBound, underWay < limits.fetchesPerWaiter,
            let gap = present.firstGap(in: cursor..<wanted.upperBound)
        {
            if let end = endOfHeld(gap) ?? pass(gap.lowerBound, priority, &actions) {
                cursor = end
                continue
            }
            let obstacle = min(nextObstacle(after: gap.lowerBound), held.firstRun(in: gap)?.lowerBound ?? .max)
            let end = min(gap.upperBound, obstacle, gap.lowerBound + limits.fetchGranules)
            let id = nextID()
            fetches[id] = Fetch(granules: gap.lowerBound..<end, priority: priority)
            actions.append(.start(fetch: id, granules: gap.lowerBound..<end, priority))
            (started, underWay, cursor) = (true, underWay + 1, end)
        }
        return started
    }

    /// Where the fetch or claim that holds `granule` ends; nil when it is free. A fetch of lower priority is promoted.
    private mutating func pass(_ granule: Int, _ priority: Priority, _ actions: inout [Action]) -> Int? {
        for (id, fetch) in fetches where fetch.granules.contains(granule) {
            if priority < fetch.priority {
                fetches[id]?.priority = priority
                actions.append(.promote(fetch: id))
            }
            return fetch.granules.upperBound
        }
        return claims.first { $0.granules.contains(granule) }?.granules.upperBound
    }

    private func nextObstacle(after granule: Int) -> Int {
        let starts = fetches.values.map(\.granules.lowerBound) + claims.map(\.granules.lowerBound)
        return starts.filter { $0 > granule }.min() ?? .max
    }
}
