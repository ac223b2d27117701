/// What is present of one file, what is on its way, and who waits for it: a pure state machine.
///
/// Methods change the state and append to `actions` what has to be done about it; nothing blocks, nothing is called. The
/// owner (``FillFile``) guards it with a lock and performs the actions after letting go of the lock.
///
/// A granule is *present*, or in exactly one *fetch*, or under a *claim* (a local change that excludes fills), or simply
/// absent. A present granule never becomes absent; truncation only lowers the layout's limit.
///
/// The lock is held for a short time however many wait. Fetches of one file are bounded in number, disjoint, and kept in
/// order. A waiter *stands* at the first granule of its range that is not present; those who stand at the same granule are
/// one *group*, which moves on as one when the granule comes. So no step goes over all waiters: n of them cost n log n,
/// whatever they wait for. A group whose granule is on its way needs nothing; the others are in turn for the next fetch.
package struct FillState: Sendable {
    /// Numbers fetches, waiters, groups and claims; unique within the process.
    package typealias ID = UInt64
    /// The user (uid) on whose behalf something is asked for: fetches are shared fairly between users.
    package typealias User = UInt32

    /// What kind of use is made of the content: the lower, the sooner it is fetched.
    package enum Priority: Int, Comparable, Sendable, CaseIterable {
        /// Somebody cannot go on without it.
        case demand
        /// Somebody will want it, but does not wait: readahead(2), and what runs in front of a reader.
        case prefetch
        /// Work on whole files that somebody asked for: recalls.
        case background

        package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    package enum Action: Sendable {
        /// Ask the remote for `granules`; every started fetch is ended by ``FillState/fetchEnded(_:error:_:)``.
        case start(fetch: ID, granules: Range<Int>, Priority, User)
        case promote(fetch: ID, Priority)
        case cancel(fetch: ID)
        /// The range of a waiter is present, or it or a claim failed.
        case finish(waiter: ID, FillError?)
        /// The claim excludes fetches from now on.
        case grant(claim: ID)
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
        /// Fetches of the file that are queued or under way at most; of those for which nobody waits three quarters.
        package var fetches = 64
        /// Granules that read-ahead runs in front of a reader at most.
        package var readAheadGranules: Int

        package init(fetchGranules: Int, readAheadGranules: Int) {
            self.fetchGranules = max(1, fetchGranules)
            self.readAheadGranules = max(0, readAheadGranules)
        }
    }

    struct Waiter {
        var granules: Range<Int>
        var user: User
    }

    package internal(set) var layout: GranuleLayout
    package internal(set) var present: GranuleSet
    /// In the lower file, and not present until the content as a whole was found right.
    private(set) var held = GranuleSet()
    private(set) var check: Check
    private var isChecking = false
    /// Why nothing will ever become present any more.
    private(set) var refusal: FillError?
    /// May change at any time.
    var limits: Limits
    let nextID: @Sendable () -> ID
    /// See ``FetchList``.
    var fetches = FetchList()
    /// The first granules of what failed: nobody but those who stand there ask for them again.
    var doubtful = GranuleSet()
    var waiters: [ID: Waiter] = [:]
    /// How many waiters want a granule is known from where their ranges begin and end.
    var begins: RankedCounts
    var ends: RankedCounts
    var groups = WaiterGroups()
    /// Groups that may start fetches, by priority; in turn between users. Of those that are gone, their numbers only.
    var needy = [RoundRobin<User, ID>](repeating: .init(), count: Priority.allCases.count)
    /// Counts what was started, so that each priority comes to its turn.
    var turns = 0
    /// See ``Claims``.
    var claims = Claims()
    private var readAhead = ReadAhead()
    /// How much work was done, in visits of fetches, groups, waiters and granules: what must not grow faster than n log n.
    package internal(set) var steps = 0

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
        begins = RankedCounts(upTo: layout.count)
        ends = RankedCounts(upTo: layout.count)
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
    package mutating func noteRead(_ range: Range<Int>, user: User = 0, _ actions: inout [Action]) {
        let granules = layout.granules(touching: range)
        guard refusal == nil, !granules.isEmpty,
            let ahead = readAhead.note(granules, maxWindow: limits.readAheadGranules)
        else { return }
        issue(ahead.clamped(to: 0..<layout.count), .prefetch, user, for: nil, &actions)
    }

    package enum Wait: Sendable { case present, joined, missed }

    /// Registers `id` as waiting for `range`, and starts the fetches it needs, or puts it in turn for them. `.present`:
    /// nothing was registered.
    package mutating func wait(
        _ id: ID, for range: Range<Int>, _ priority: Priority, user: User = 0, _ actions: inout [Action]
    ) -> Wait {
        var granules = layout.granules(touching: range)
        if present.contains(granules) { return .present }
        if let refusal {
            actions.append(.finish(waiter: id, refusal))
            return .joined
        }
        if case .all = check { granules = 0..<layout.count }
        guard let stand = present.firstAbsent(in: granules) else { return .present }
        let group = join(id, Waiter(granules: granules, user: user), stand, priority)
        startCheck(&actions)
        let issued = issue(stand..<granules.upperBound, priority, user, for: group, &actions)
        if issued.isFull { enqueue(group) }
        return issued.hasStarted || issued.isFull ? .missed : .joined
    }

    /// The waiter or claimant no longer waits; false when it was not waiting. Fetches that only it needed are cancelled.
    @discardableResult
    package mutating func abandon(_ id: ID, _ actions: inout [Action]) -> Bool {
        if let granules = claims.removePending(id) {
            claimEnded(granules, &actions)
            return true
        }
        guard let waiter = removeWaiter(id) else { return false }
        cancelUnneeded(waiter.granules, &actions)
        startFetches(&actions)
        return true
    }

    /// `granules` of the fetch were written to the lower file and can be read. With its last granule the fetch is over:
    /// whoever is told that the content is there finds nothing under way.
    package mutating func filled(_ id: ID, _ granules: Range<Int>, _ actions: inout [Action]) {
        let ended = fetches.advance(id, to: granules.upperBound)
        arrived(granules, &actions)
        if let ended {
            if let group = ended.group { enqueue(group) }
            grantClaims(&actions)
        }
        startFetches(&actions)
    }

    /// The fetch will deliver no more; nothing when it has delivered everything. With an error, those who stand at the
    /// granule that it failed at fail; those who want what would have come behind it, or come to it later, ask again, so
    /// that one bad granule harms nobody else.
    package mutating func fetchEnded(_ id: ID, error: FillError?, _ actions: inout [Action]) {
        guard let fetch = fetches.remove(id) else { return }
        if let error, !fetch.isCancelled, let bad = fetch.granules.first { failed(at: bad, error, &actions) }
        enqueue(standingIn: fetch.granules)
        if let group = fetch.group { enqueue(group) }
        grantClaims(&actions)
        startFetches(&actions)
    }

    package enum Standing: Sendable { case wanted(Priority), cancelled }

    /// What has become of a started fetch; nil when it has ended.
    package func standing(of id: ID) -> Standing? {
        fetches[id].map { $0.isCancelled ? .cancelled : .wanted($0.priority) }
    }

    /// The file was cut to `size` under a claim of everything from there on.
    package mutating func truncated(to size: Int, _ actions: inout [Action]) {
        layout.lowerLimit(to: size)
        present.remove(layout.count..<Int.max)
        held.remove(layout.count..<Int.max)
        finishGroups(standingIn: layout.count..<Int.max, &actions)
    }

    /// Fails everyone who waits, for content or a claim, and cancels every fetch.
    package mutating func failAll(_ error: FillError, _ actions: inout [Action]) {
        failFills(error, &actions)
        for claim in claims.removeAllPending() { actions.append(.finish(waiter: claim, error)) }
    }

    /// Fails everyone who waits for content, and cancels every fetch, also those of the read-ahead.
    package mutating func failFills(_ error: FillError, _ actions: inout [Action]) {
        failWaiters(error, &actions)
        for id in fetches.ids { cancel(id, &actions) }
    }

    // MARK: Inside

    mutating func hold(_ granules: Range<Int>) {
        present.remove(granules)
        held.insert(granules)
    }

    /// What is written over need not be checked.
    mutating func unhold(_ granules: Range<Int>) { held.remove(granules) }

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
        moveGroups(standingIn: granules, &actions)
    }
}
