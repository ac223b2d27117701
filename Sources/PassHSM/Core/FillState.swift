/// The state of one file's content: which granules are present, which are being fetched, and what waits for them. A
/// pure state machine.
///
/// Methods change the state and append the necessary actions to `actions`. They neither block nor call anything. The
/// owner (``FillFile``) guards the state with a lock, and performs the actions after it has unlocked it.
///
/// A granule is *present*, in exactly one *fetch*, under an *exclusive write* (a local change that excludes fetches),
/// or simply absent. A present granule never becomes absent; truncation only lowers the layout's limit.
///
/// The lock is held for a short time, however many waiters there are. Fetches of one file are bounded in number,
/// disjoint, and ordered. A waiter *stands* at the first granule of its range that is not present. Waiters that stand
/// at the same granule form one *group*, which moves on as one when the granule arrives. No step visits all waiters: n
/// waiters cost n log n steps, whatever they wait for. A group whose granule is being fetched needs nothing; the other
/// groups queue for the next fetch.
package struct FillState: Sendable {
    /// Identifies fetches, waiters, groups and exclusive writes; unique within the process.
    package typealias ID = UInt64
    /// The uid on whose behalf content is requested. Users share the fetches fairly.
    package typealias User = UInt32

    /// How urgently content is needed. A lower raw value is fetched sooner.
    package enum Priority: Int, Comparable, Sendable, CaseIterable {
        /// A thread waits for it.
        case demand
        /// No thread waits for it yet: readahead(2), and read-ahead in front of a reader.
        case prefetch
        /// Work on whole files that a user started, such as a recall.
        case background

        package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    /// A step that the owner of a state has to perform.
    package enum Action: Sendable {
        /// Ask the remote for `granules`. Every started fetch ends with ``FillState/fetchEnded(_:error:_:)``.
        case start(fetch: ID, granules: Range<Int>, Priority, User)
        case promote(fetch: ID, Priority)
        case cancel(fetch: ID)
        /// Complete a waiter whose range is present, or fail a waiter or exclusive write with the error.
        case complete(waiter: ID, FillError?)
        /// The exclusive write is granted: no fetch touches its granules from now on.
        case grant(write: ID)
        /// Check the whole content. ``FillState/checked(_:_:)`` takes the result.
        case check
    }

    /// Which granules are held back until the whole content has been checked.
    package enum Check: Sendable {
        /// None; the content is not checked.
        case none
        /// The granule that arrives last, so that an unchecked file is never complete.
        case last
        /// Every granule.
        case all
    }

    /// The limits on the fetches of one file.
    package struct Limits: Sendable {
        /// Most granules in one fetch.
        package var fetchGranules: Int
        /// Most fetches that one waiter keeps under way.
        package var fetchesPerWaiter = 8
        /// Most fetches of the file that are queued or under way. At most three quarters of them may have a lower
        /// priority than demand.
        package var fetches = 64
        /// Most granules that read-ahead runs in front of a reader.
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
    /// Granules that are in the lower file and wait for the check of the whole content.
    private(set) var held = GranuleSet()
    private(set) var check: Check
    private var isChecking = false
    /// The error for every absent granule, once nothing can become present any more.
    private(set) var refusal: FillError?
    /// The owner may change these at any time.
    var limits: Limits
    let nextID: @Sendable () -> ID
    /// See ``FetchList``.
    var fetches = FetchList()
    /// The granules that fetches failed at. Only a group that stands at one of them asks for it again.
    var doubtful = GranuleSet()
    var waiters: [ID: Waiter] = [:]
    /// Where the waiters' ranges begin and end; this tells how many waiters want a granule.
    var begins: RankedCounts
    var ends: RankedCounts
    var groups = WaiterGroups()
    /// Queues of groups that may start fetches, one for each priority; users take turns. Numbers of groups that are
    /// gone may stay in them.
    var needy = [RoundRobin<User, ID>](repeating: .init(), count: Priority.allCases.count)
    /// Counts the turns, so that each priority gets its share.
    var turns = 0
    /// See ``ExclusiveWrites``.
    var exclusiveWrites = ExclusiveWrites()
    private var readAhead = ReadAhead()
    /// Counts visits of fetches, groups, waiters and granules, for tests: it must not grow faster than n log n.
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

    /// Whether the lower file holds every byte of the file.
    package var isComplete: Bool { present.count == layout.count }
    /// Whether there is no fetch, waiter, exclusive write or check.
    package var isIdle: Bool { fetches.isEmpty && waiters.isEmpty && exclusiveWrites.isEmpty && !isChecking }

    /// Whether the lower file holds every byte of `range`.
    package func isPresent(_ range: Range<Int>) -> Bool { present.contains(layout.granules(touching: range)) }

    /// Notes a read for the read-ahead, and starts fetches for the granules that should come next.
    package mutating func noteRead(_ range: Range<Int>, user: User = 0, _ actions: inout [Action]) {
        let granules = layout.granules(touching: range)
        guard refusal == nil, !granules.isEmpty,
            let ahead = readAhead.note(granules, maxWindow: limits.readAheadGranules)
        else { return }
        issue(ahead.clamped(to: 0..<layout.count), .prefetch, user, for: nil, &actions)
    }

    /// Whether the range is present, is being fetched already, or needs a new fetch.
    package enum Wait: Sendable { case present, joined, missed }

    /// Registers `id` as waiting for `range`, and starts the fetches that it needs, or queues it for them.
    ///
    /// - Returns: `.present` when nothing was registered, because the range is present already.
    package mutating func wait(
        _ id: ID, for range: Range<Int>, _ priority: Priority, user: User = 0, _ actions: inout [Action]
    ) -> Wait {
        var granules = layout.granules(touching: range)
        if present.contains(granules) { return .present }
        if let refusal {
            actions.append(.complete(waiter: id, refusal))
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

    /// Removes a waiter, or an exclusive write that is not granted. Fetches that only it needed are cancelled. False
    /// when there is no such waiter or exclusive write.
    @discardableResult
    package mutating func cancel(waiter id: ID, _ actions: inout [Action]) -> Bool {
        if let granules = exclusiveWrites.removePending(id) {
            writeEnded(granules, &actions)
            return true
        }
        guard let waiter = removeWaiter(id) else { return false }
        cancelUnneeded(waiter.granules, &actions)
        startFetches(&actions)
        return true
    }

    /// Notes that `granules` of the fetch were written to the lower file and can be read. The last granule ends the
    /// fetch, so that a waiter that is completed by it finds no fetch under way.
    package mutating func filled(_ id: ID, _ granules: Range<Int>, _ actions: inout [Action]) {
        let ended = fetches.advance(id, to: granules.upperBound)
        arrived(granules, &actions)
        if let ended {
            if let group = ended.group { enqueue(group) }
            grantWrites(&actions)
        }
        startFetches(&actions)
    }

    /// Notes that the fetch will deliver nothing more. Does nothing when it has delivered everything.
    ///
    /// An error fails the waiters that stand at the granule that the fetch failed at. Waiters for later granules of the
    /// fetch ask again, so that one bad granule harms no other reader.
    package mutating func fetchEnded(_ id: ID, error: FillError?, _ actions: inout [Action]) {
        guard let fetch = fetches.remove(id) else { return }
        if let error, !fetch.isCancelled, let bad = fetch.granules.first { failed(at: bad, error, &actions) }
        enqueue(standingIn: fetch.granules)
        if let group = fetch.group { enqueue(group) }
        grantWrites(&actions)
        startFetches(&actions)
    }

    package enum Standing: Sendable { case wanted(Priority), cancelled }

    /// The standing of a started fetch; nil when it has ended.
    package func standing(of id: ID) -> Standing? {
        fetches[id].map { $0.isCancelled ? .cancelled : .wanted($0.priority) }
    }

    /// Notes that the file was truncated to `size`. The caller holds an exclusive write on everything from `size` on.
    package mutating func truncated(to size: Int, _ actions: inout [Action]) {
        layout.lowerLimit(to: size)
        present.remove(layout.count..<Int.max)
        held.remove(layout.count..<Int.max)
        completeGroups(standingIn: layout.count..<Int.max, &actions)
    }

    /// Fails all waiters and all exclusive writes that are not granted, and cancels every fetch.
    package mutating func failAll(_ error: FillError, _ actions: inout [Action]) {
        failFills(error, &actions)
        for write in exclusiveWrites.removeAllPending() { actions.append(.complete(waiter: write, error)) }
    }

    /// Fails all waiters, and cancels every fetch, including read-ahead.
    package mutating func failFills(_ error: FillError, _ actions: inout [Action]) {
        failWaiters(error, &actions)
        for id in fetches.ids { cancel(fetch: id, &actions) }
    }

    // MARK: Inside

    mutating func hold(_ granules: Range<Int>) {
        present.remove(granules)
        held.insert(granules)
    }

    /// Overwritten granules need no check.
    mutating func unhold(_ granules: Range<Int>) { held.remove(granules) }

    /// Starts the check once all granules are in the lower file.
    mutating func startCheck(_ actions: inout [Action]) {
        guard !isChecking, refusal == nil, !held.isEmpty, present.count + held.count == layout.count else { return }
        isChecking = true
        actions.append(.check)
    }

    mutating func endCheck(_ error: FillError?) {
        isChecking = false
        refusal = error
    }

    /// Ends the holding back. Returns the granules that were held.
    mutating func admitHeld() -> [Range<Int>] {
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
