import Synchronization

/// Fetches what is missing, exactly once however many wait for it: the one engine behind both front ends.
///
/// Every method may be called on any thread, and none blocks. A request is made under a *ticket*, which the caller takes
/// first, so that it can be cancelled at any moment from then on; its completion is called exactly once, on the caller's
/// thread or on one of the pool's.
package final class FillEngine: Sendable {
    package struct Configuration: Sendable {
        /// Fetches at the remote at once.
        package var concurrentFetches = 64
        /// Bytes that read-ahead runs in front of a sequential reader at most.
        package var readAhead = 8 << 20
        /// How long a request waits before it fails with EIO.
        package var deadline: Duration = .seconds(60)
        /// When a remote that fails is asked again; whatever it says there, no pause is longer than ``deadline``.
        package var retries = RetryPolicy()

        package init() {}
    }

    package typealias Ticket = UInt64
    package typealias Completion = @Sendable (FillError?) -> Void

    /// One waiter, of a range or of a claim.
    private struct Request {
        var file: FillFile?
        var deadline: ContinuousClock.Instant
        /// Cancelled before the request was made under the ticket.
        var isCancelled = false
        /// Of a request that is of no file's content.
        var task: Task<Void, Never>?
        let completion: Completion
    }

    /// A fetch that was started and has not ended.
    private struct Fetch {
        let file: FillFile
        let granules: Range<Int>
        var task: Task<Void, Never>?
        var isCancelled = false
    }

    private struct Fetches {
        var queue: FetchQueue<FillState.ID>
        var all: [FillState.ID: Fetch] = [:]
    }

    package let source: any RemoteSource
    package let counters = EngineCounters()
    private let configuration: Configuration
    private let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    // Both are leaf locks: nothing is called while one is held, and no two are held at once.
    private let requests = Mutex<[Ticket: Request]>([:])
    private let fetches: Mutex<Fetches>
    /// Until then nothing may wait for a fill.
    private let refusal = Mutex<ContinuousClock.Instant?>(nil)

    /// - Parameter pool: runs the fetches; its threads may block.
    package init(source: any RemoteSource, configuration: Configuration = .init(), pool: any TaskExecutor) {
        self.source = source
        self.configuration = configuration
        self.pool = pool
        fetches = Mutex(Fetches(queue: FetchQueue(limit: configuration.concurrentFetches)))
    }

    @Sendable func makeID() -> FillState.ID { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

    func limits(granuleSize: Int) -> FillState.Limits {
        FillState.Limits(
            fetchGranules: source.fetchUnit / granuleSize, readAheadGranules: configuration.readAhead / granuleSize)
    }

    /// How many requests wait, for `status`.
    package var waiting: Int { requests.withLock(\.count) }

    // MARK: Requests

    /// Whether a read of `range` can be answered from the lower file now. Feeds the read-ahead.
    package func isResident(_ range: Range<Int>, of file: FillFile) -> Bool {
        var actions: [FillState.Action] = []
        let present = file.state.withLock { state in
            state.noteRead(range, &actions)
            return state.isPresent(range)
        }
        perform(actions, of: file)
        if present { counters.hits.add() }
        return present
    }

    /// Takes a ticket; `completion` is called once, after a request was made under it.
    package func makeTicket(_ completion: @escaping Completion) -> Ticket {
        let ticket = makeID()
        let deadline = ContinuousClock.now + configuration.deadline
        requests.withLock { $0[ticket] = Request(deadline: deadline, completion: completion) }
        return ticket
    }

    /// Completes the ticket without error once every byte of `range` can be read from the lower file.
    package func ensureResident(
        _ range: Range<Int>, of file: FillFile, priority: FillState.Priority = .demand, ticket: Ticket
    ) {
        request(ticket, file, isFill: true) { state, actions in
            switch state.wait(ticket, for: range, priority, &actions) {
            case .present:
                counters.hits.add()
                return true
            case .joined: counters.joins.add()
            case .missed: counters.misses.add()
            }
            return false
        }
    }

    /// Completes the ticket without error once no fetch touches `granules` nor will until ``release(_:of:present:)`` is
    /// called with it. For local changes; waiters of the granules wait for its end.
    package func claim(_ granules: Range<Int>, of file: FillFile, cancelFetches: Bool = false, ticket: Ticket) {
        request(ticket, file, isFill: false) { state, actions in
            state.claim(ticket, granules, cancelFetches: cancelFetches, &actions)
        }
    }

    /// Completes the ticket without error, for a caller who finds that there is nothing to wait for.
    package func finish(_ ticket: Ticket) { complete(ticket, nil) }

    /// Asks the remote what it has under `key` now, and completes the ticket when `found` has dealt with it; `found` may
    /// block, and may be called although the ticket was cancelled.
    package func lookUp(
        _ key: RemoteKey, ticket: Ticket,
        found: @escaping @Sendable (RemoteObject, RemoteEntry.Time) throws(FillError) -> Void
    ) {
        if isRefusing { return complete(ticket, Self.stopped) }
        let task = Task(executorPreference: pool) {
            var failure: FillError?
            do throws(FillError) {
                let (object, modified) = try await self.source.current(key)
                try found(object, modified)
            } catch { failure = error }
            self.complete(ticket, failure)
        }
        let isCancelled = requests.withLock { requests in
            requests[ticket]?.task = task
            return requests[ticket]?.isCancelled ?? false
        }
        if isRefusing { return fail(ticket, Self.stopped) }
        if isCancelled { cancel(ticket) }
    }

    /// Ends the claim of `ticket`; `granules` now hold local content.
    package func release(_ ticket: Ticket, of file: FillFile, present granules: Range<Int>) {
        change(file) { $0.release(ticket, present: granules, &$1) }
    }

    /// The file was cut to `size` under a claim of everything from there on.
    package func truncated(_ file: FillFile, to size: Int) {
        change(file) { $0.truncated(to: size, &$1) }
    }

    /// Fails the request of the ticket with EINTR. Does nothing when it is completed or unknown.
    package func cancel(_ ticket: Ticket) {
        fail(ticket, FillError(.interrupted, .cancelled, "the caller gave up"))
    }

    /// Whether the request of the ticket is not completed yet.
    package func isWaiting(_ ticket: Ticket) -> Bool { requests.withLock { $0[ticket] != nil } }

    /// Fails every request that is past its deadline. To be called about once a second.
    package func expire(now: ContinuousClock.Instant = .now) {
        let late = requests.withLock { $0.filter { $0.value.deadline < now }.map(\.key) }
        for ticket in late {
            fail(ticket, FillError(.io, .deadline, "not filled within \(configuration.deadline)"))
        }
    }

    /// Fails everything that waits with EIO, cancels every fetch, and lets nothing wait for a fill from now on. Claims are
    /// still granted: what was written locally can be brought to disk.
    package func shutDown() { refuse(for: .seconds(1 << 32)) }

    /// As ``shutDown()``, but only for a while: a reader whose read-ahead fails asks again at once.
    package func refuse(for duration: Duration) {
        refusal.withLock { $0 = .now + duration }
        let files = requests.withLock { $0.values.compactMap(\.file) } + fetches.withLock { $0.all.values.map(\.file) }
        for file in files { change(file) { $0.failAll(Self.stopped, &$1) } }
        for ticket in requests.withLock({ $0.filter { $0.value.task != nil }.map(\.key) }) {
            fail(ticket, Self.stopped)
        }
    }

    private var isRefusing: Bool { refusal.withLock { $0.map { $0 > .now } ?? false } }

    private static let stopped = FillError(.io, .shutdown, "the file system is being unmounted")

    private func request(
        _ ticket: Ticket, _ file: FillFile, isFill: Bool,
        _ make: (inout FillState, inout [FillState.Action]) -> Bool
    ) {
        let isCancelled = requests.withLock { requests in
            requests[ticket]?.file = file
            return requests[ticket]?.isCancelled ?? true
        }
        if isCancelled || (isFill && isRefusing) {
            complete(ticket, isCancelled ? FillError(.interrupted, .cancelled, "the caller gave up") : Self.stopped)
            return
        }
        var actions: [FillState.Action] = []
        let isDone = file.state.withLock { make(&$0, &actions) }
        if isDone { complete(ticket, nil) }
        perform(actions, of: file)
        // A shutdown or a cancel between the check and the lock saw no waiter to fail.
        if isFill && isRefusing { change(file) { $0.failAll(Self.stopped, &$1) } }
        if requests.withLock({ $0[ticket]?.isCancelled ?? false }) { cancel(ticket) }
    }

    private func fail(_ ticket: Ticket, _ error: FillError) {
        let (file, task) = requests.withLock { requests in
            requests[ticket]?.isCancelled = true
            return (requests[ticket]?.file, requests[ticket]?.task)
        }
        guard let file else {
            task?.cancel()
            return task == nil ? () : complete(ticket, error)
        }
        var actions: [FillState.Action] = []
        guard file.state.withLock({ $0.abandon(ticket, &actions) }) else { return }
        perform(actions, of: file)
        if error.reason == .cancelled { counters.cancelled.add() } else { counters.errors.add() }
        complete(ticket, error)
    }

    private func complete(_ ticket: Ticket, _ error: FillError?) {
        requests.withLock { $0.removeValue(forKey: ticket) }?.completion(error)
    }

    private func change(_ file: FillFile, _ body: (inout FillState, inout [FillState.Action]) -> Void) {
        var actions: [FillState.Action] = []
        let isComplete = file.state.withLock { state in
            body(&state, &actions)
            return state.isComplete
        }
        if isComplete { file.destination.contentComplete() }
        perform(actions, of: file)
    }

    // MARK: Fetches

    private func perform(_ actions: [FillState.Action], of file: FillFile) {
        for action in actions {
            switch action {
            case .finish(let waiter, let error): complete(waiter, error)
            case .start(let id, let granules, let priority):
                counters.fetches.add()
                if priority == .prefetch { counters.prefetches.add() }
                fetches.withLock {
                    $0.all[id] = Fetch(file: file, granules: granules)
                    $0.queue.add(id, priority)
                }
                catchUp(id, priority, file)
                startFetches()
            case .promote(let id):
                fetches.withLock { $0.queue.promote(id) }
                startFetches()
            case .cancel(let id): cancelFetch(id)
            case .check:
                Task(executorPreference: pool) {
                    let error = file.destination.checkContent()
                    if error != nil { self.counters.errors.add() }
                    self.change(file) { $0.checked(error, &$1) }
                }
            }
        }
    }

    /// Since the fetch was decided on, another thread may have cancelled or promoted it, or shut the engine down: that
    /// thread saw no fetch, so that it is done here.
    private func catchUp(_ id: FillState.ID, _ priority: FillState.Priority, _ file: FillFile) {
        if isRefusing { change(file) { $0.failAll(Self.stopped, &$1) } }
        switch file.state.withLock({ $0.standing(of: id) }) {
        case .cancelled: cancelFetch(id)
        case .wanted(let now) where now < priority: fetches.withLock { $0.queue.promote(id) }
        case .wanted, nil: break
        }
    }

    private func cancelFetch(_ id: FillState.ID) {
        let (file, task) = fetches.withLock { fetches -> (FillFile?, Task<Void, Never>?) in
            guard fetches.queue.removeWaiting(id) else {
                fetches.all[id]?.isCancelled = true
                return (nil, fetches.all[id]?.task)
            }
            return (fetches.all.removeValue(forKey: id)?.file, nil)
        }
        task?.cancel()
        if let file { change(file) { $0.fetchEnded(id, error: nil, &$1) } }
    }

    private func startFetches() {
        while let (id, fetch) = fetches.withLock({ fetches in
            fetches.queue.next().flatMap { id in fetches.all[id].map { (id, $0) } }
        }) {
            let task = Task(executorPreference: pool) { await self.run(id, fetch.file, fetch.granules) }
            let isCancelled = fetches.withLock { fetches in
                fetches.all[id]?.task = task
                return fetches.all[id]?.isCancelled ?? false
            }
            if isCancelled { task.cancel() }
        }
    }

    private func run(_ id: FillState.ID, _ file: FillFile, _ granules: Range<Int>) async {
        var rest = granules
        var error = await fetch(id, file, &rest)
        var retries = configuration.retries
        retries.longestPause = configuration.deadline
        var attempt = 1
        while let failure = error, !rest.isEmpty, let pause = retries.pause(after: failure, attempt: attempt) {
            do { try await Task.sleep(for: pause) } catch { break }
            counters.retries.add()
            error = await fetch(id, file, &rest)
            attempt += 1
        }
        let isCancelled = fetches.withLock { fetches in
            fetches.queue.ended(id)
            return fetches.all.removeValue(forKey: id)?.isCancelled ?? false
        }
        if let error, !isCancelled {
            counters.errors.add()
            file.destination.fillFailed(error)
        }
        change(file) { $0.fetchEnded(id, error: error, &$1) }
        startFetches()
    }

    /// Asks the remote once; `granules` become those that have not come.
    private func fetch(_ id: FillState.ID, _ file: FillFile, _ granules: inout Range<Int>) async -> FillError? {
        let end = granules.upperBound
        var assembler = GranuleAssembler(granules: granules, layout: file.layout)
        let range = file.layout.bytes(of: granules)
        do throws(FillError) {
            try await source.read(file.object, range: range) { bytes throws(FillError) in
                try assembler.add(bytes) { whole, content throws(FillError) in
                    try file.destination.fill(whole, with: content)
                    granules = whole.upperBound..<end
                    counters.granulesFetched.add(whole.count)
                    counters.bytesFetched.add(content.count)
                    change(file) { $0.filled(id, whole, &$1) }
                }
            }
            if !assembler.isFinished {
                throw FillError(
                    .io, .remoteFailed,
                    "the remote sent \(assembler.received) of \(range.count) bytes at offset \(range.lowerBound)")
            }
            return nil
        } catch {
            return error
        }
    }
}
