import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Fetches what is missing, exactly once however many wait for it: the one engine behind both front ends.
///
/// Every method may be called on any thread, and none blocks. A request is made under a *ticket*, which the caller takes
/// first, so that it can be cancelled at any moment from then on; its completion is called exactly once, on the caller's
/// thread or on one of the pool's.
package final class FillEngine: Sendable {
    package struct Configuration: Sendable {
        /// Fetches at the remote at once.
        package var concurrentFetches = 64
        /// Fetches of which nothing comes, beside them: objects that hang keep no others waiting.
        package var stalledFetches = 256
        /// How long nothing comes of such a fetch.
        package var stallTime: Duration = .seconds(2)
        /// Bytes that read-ahead runs in front of a sequential reader at most; more where the line to the remote is long
        /// (``BandwidthEstimator``).
        package var readAhead = 8 << 20
        /// And not more than this.
        package var maxReadAhead = 64 << 20
        /// How long a request waits, while nothing of its content comes, before it fails with EIO.
        package var deadline: Duration = .seconds(60)
        /// How long it waits at most, whatever comes; nil: for ever.
        package var maxWait: Duration?
        /// When a remote that fails is asked again; whatever it says there, no pause is longer than ``deadline``.
        package var retries = RetryPolicy()
        /// What becomes of fills while the remote is down.
        package var offline = RemoteHealth.Offline.block
        /// When it is known to be.
        package var circuitBreaker = CircuitBreaker.Policy()
        /// The time by which deadlines and stalled fetches go.
        package var now: @Sendable () -> ContinuousClock.Instant = { .now }

        package init() {}
    }

    package typealias Ticket = UInt64
    package typealias Completion = @Sendable (FillError?) -> Void

    /// Nobody: work of which no user is known.
    package typealias User = FillState.User

    package let source: any RemoteSource
    package let counters = EngineCounters()
    /// Knows whether the remote is there.
    package let remoteHealth: RemoteHealth
    let configuration: Configuration
    let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    /// A leaf lock.
    private let estimator: NIOLockedValueBox<BandwidthEstimator>
    // What ``estimator`` says, in bytes.
    private let window: Atomic<Int>
    private let fetchSize: Atomic<Int>
    // Both are leaf locks: nothing is called while one is held, and no two are held at once.
    let requests = NIOLockedValueBox(FillRequests())
    let fetches: NIOLockedValueBox<Fetches>
    private let origin: ContinuousClock.Instant
    /// Until then nothing may wait for a fill.
    let refusal = NIOLockedValueBox<ContinuousClock.Instant?>(nil)

    /// - Parameter pool: runs the fetches; its threads may block.
    package init(source: any RemoteSource, configuration: Configuration = .init(), pool: any TaskExecutor) {
        self.source = source
        self.configuration = configuration
        self.pool = pool
        let maxWindow = configuration.readAhead == 0 ? 0 : configuration.maxReadAhead
        let sizes = source.fetchUnit...max(source.fetchUnit, source.nearFetchUnit)
        estimator = NIOLockedValueBox(
            BandwidthEstimator(minWindow: configuration.readAhead, maxWindow: maxWindow, fetchSizes: sizes))
        window = Atomic(configuration.readAhead)
        fetchSize = Atomic(source.fetchUnit)
        remoteHealth = RemoteHealth(source, configuration.offline, configuration.circuitBreaker, pool: pool)
        origin = configuration.now()
        fetches = NIOLockedValueBox(
            Fetches(
                queue: FetchQueue(limit: configuration.concurrentFetches, maxStalled: configuration.stalledFetches)))
    }

    @Sendable func makeID() -> FillState.ID { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

    func limits(granuleSize: Int) -> FillState.Limits {
        let (window, fetchSize) = (window.load(ordering: .relaxed), fetchSize.load(ordering: .relaxed))
        var limits = FillState.Limits(
            fetchGranules: fetchSize / granuleSize, readAheadGranules: window / granuleSize)
        limits.fetchesPerWaiter = max(limits.fetchesPerWaiter, window / fetchSize)
        limits.fetches = max(limits.fetches, configuration.concurrentFetches)
        return limits
    }

    /// Notes how a fetch fares, and what that means for the next ones.
    func updateEstimate(_ body: (inout BandwidthEstimator) -> Void) {
        let now = estimator.withLockedValue { estimator in
            body(&estimator)
            return (window: estimator.window, fetchSize: estimator.fetchSize)
        }
        if window.load(ordering: .relaxed) != now.window { window.store(now.window, ordering: .relaxed) }
        if fetchSize.load(ordering: .relaxed) != now.fetchSize { fetchSize.store(now.fetchSize, ordering: .relaxed) }
    }

    /// How many requests wait, for `status`.
    package var waiting: Int { requests.withLockedValue(\.count) }

    static let stopped = FillError(.io, .shutdown, "the file system is being unmounted")
    static let givenUp = FillError(.interrupted, .cancelled, "the caller gave up")

    // MARK: Requests

    /// Whether a read of `range` can be answered from the lower file now. Feeds the read-ahead.
    package func isResident(_ range: Range<Int>, of file: FillFile, user: User = 0) -> Bool {
        var actions: [FillState.Action] = []
        let present = file.state.withLockedValue { state in
            state.limits = limits(granuleSize: state.layout.granuleSize)
            state.noteRead(range, user: user, &actions)
            return state.isPresent(range)
        }
        perform(actions, of: file)
        if present { counters.hits.add() }
        return present
    }

    /// Takes a ticket; `completion` is called once, after a request was made under it.
    package func makeTicket(_ completion: @escaping Completion) -> Ticket {
        let ticket = makeID()
        let now = configuration.now()
        let end = configuration.maxWait.map { now + $0 }
        requests.withLockedValue {
            $0.add(ticket, .init(made: now, deadline: now + configuration.deadline, end: end, completion: completion))
        }
        return ticket
    }

    /// Completes the ticket without error once every byte of `range` can be read from the lower file.
    ///
    /// - Parameter user: for whom; places at the remote are shared between users.
    package func ensureResident(
        _ range: Range<Int>, of file: FillFile, priority: FillState.Priority = .demand, user: User = 0, ticket: Ticket
    ) {
        request(ticket, file, range, priority) { state, actions in
            state.limits = limits(granuleSize: state.layout.granuleSize)
            switch state.wait(ticket, for: range, priority, user: user, &actions) {
            case .present:
                counters.hits.add()
                return true
            case .joined: counters.joins.add()
            case .missed: counters.misses.add()
            }
            return false
        }
    }

    /// Somebody waits for what was taken for a prefetch. Does nothing when the ticket is completed, or demand already.
    package func becomeDemand(_ ticket: Ticket) {
        let file = requests.withLockedValue { requests -> FillFile? in
            guard let request = requests[ticket], request.isFill, request.priority > .demand else { return nil }
            requests.update(ticket) { $0.priority = .demand }
            return request.file
        }
        if let file { change(file) { $0.promote(ticket, to: .demand, &$1) } }
    }

    /// Returns once every byte of `range` can be read from the lower file.
    ///
    /// - Throws: why not; `.cancelled` as soon as the task is.
    package func waitForResidence(
        of range: Range<Int>, in file: FillFile, priority: FillState.Priority, user: User = 0
    ) async throws(FillError) {
        let made = Mutex<Ticket?>(nil)
        let error = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<FillError?, Never>) in
                let ticket = makeTicket { continuation.resume(returning: $0) }
                made.withLock { $0 = ticket }
                ensureResident(range, of: file, priority: priority, user: user, ticket: ticket)
                // Whoever cancelled before there was a ticket had none to cancel.
                if Task.isCancelled { cancel(ticket) }
            }
        } onCancel: {
            if let ticket = made.withLock({ $0 }) { cancel(ticket) }
        }
        if let error { throw error }
    }

    /// Completes the ticket without error once no fetch touches `granules` nor will until ``release(_:of:present:)`` is
    /// called with it. For local changes; waiters of the granules wait for its end.
    package func claim(_ granules: Range<Int>, of file: FillFile, cancelFetches: Bool = false, ticket: Ticket) {
        request(ticket, file, nil, .demand) { state, actions in
            state.claim(ticket, granules, cancelFetches: cancelFetches, &actions)
        }
    }

    /// Completes the ticket without error, for a caller who finds that there is nothing to wait for.
    package func finish(_ ticket: Ticket) { complete(ticket, nil) }

    /// Asks the remote what it has under `key` now, and completes the ticket when `found` has dealt with it; `found` may
    /// block, and may be called although the ticket was cancelled.
    ///
    /// - Parameter timeout: after so long the ticket is completed with an error.
    package func lookUp(
        _ key: RemoteKey, ticket: Ticket, timeout: Duration? = nil,
        found: @escaping @Sendable (RemoteObject, RemoteEntry.Time) throws(FillError) -> Void
    ) {
        if let refusal = isRefusing ? Self.stopped : remoteHealth.refusal {
            complete(ticket, refusal)
            return
        }
        let timer = timeout.map { timeout in
            Task(executorPreference: pool) {
                guard (try? await Task.sleep(for: timeout)) != nil else { return }
                self.complete(ticket, FillError(.io, .remoteFailed, "the remote did not tell within \(timeout)"))
            }
        }
        let task = Task(executorPreference: pool) {
            defer { timer?.cancel() }
            let began = ContinuousClock.now
            var failure: FillError?
            do throws(FillError) {
                let (object, modified) = try await self.source.current(key)
                self.remoteHealth.note(nil, key, began: began)
                try found(object, modified)
            } catch {
                failure = error
                self.remoteHealth.note(error, key, began: began)
            }
            self.complete(ticket, failure)
        }
        let isCancelled = requests.withLockedValue { requests in
            requests.update(ticket) { $0.task = task }
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

    private func request(
        _ ticket: Ticket, _ file: FillFile, _ range: Range<Int>?, _ priority: FillState.Priority,
        _ make: (inout FillState, inout [FillState.Action]) -> Bool
    ) {
        // The file's own layout is behind its lock, and nothing raises the limit.
        let granules = range.map { file.granules(touching: $0) } ?? 0..<0
        let isFill = range != nil
        let isCancelled = requests.withLockedValue { requests in
            requests.update(ticket) { request in
                request.file = file
                request.granules = granules
                request.isFill = isFill
                request.priority = priority
            }
            return requests[ticket]?.isCancelled ?? true
        }
        if isCancelled || (isFill && isRefusing) {
            complete(ticket, isCancelled ? Self.givenUp : Self.stopped)
            return
        }
        var actions: [FillState.Action] = []
        let isDone = file.state.withLockedValue { make(&$0, &actions) }
        if isDone && isFill { complete(ticket, nil) } else if isDone { grant(ticket, file) }
        perform(actions, of: file)
        if isFill && isRefusing {
            fail(ticket, Self.stopped)
            change(file) { $0.failFills(Self.stopped, &$1) }
        }
        // Whoever has taken the request since then may have told a state that did not know of it.
        if !isDone && !isWaiting(ticket) { change(file) { $0.abandon(ticket, &$1) } }
    }

    /// The claim of the ticket is granted; it is ended at once when nobody waits for it any more.
    func grant(_ ticket: Ticket, _ file: FillFile) {
        if !complete(ticket, nil) { release(ticket, of: file, present: 0..<0) }
    }

    /// False when it was completed already.
    @discardableResult
    func complete(_ ticket: Ticket, _ error: FillError?) -> Bool {
        guard let request = requests.withLockedValue({ $0.take(ticket) }) else { return false }
        answer(request, error)
        return true
    }

    func answer(_ request: FillRequests.Request, _ error: FillError?) {
        guard request.isFill, error == nil else { return request.completion(error) }
        let completed = ContinuousClock.now
        counters.waitNanoseconds.add(completed - request.began)
        request.completion(nil)
        counters.answerNanoseconds.add(.now - completed)
    }

    @discardableResult
    func change<Result>(
        _ file: FillFile, _ body: (inout FillState, inout [FillState.Action]) -> Result
    ) -> Result {
        var actions: [FillState.Action] = []
        let (isComplete, result) = file.state.withLockedValue { state in
            let result = body(&state, &actions)
            return (state.isComplete, result)
        }
        if isComplete { file.destination.contentComplete() }
        perform(actions, of: file)
        return result
    }

    /// A moment as ``FillProgress`` has it: nanoseconds, at least 1.
    func time(_ moment: ContinuousClock.Instant) -> Int {
        let passed = (moment - origin).components
        return max(1, Int(passed.seconds) * 1_000_000_000 + Int(passed.attoseconds / 1_000_000_000))
    }

    func moment(_ time: Int) -> ContinuousClock.Instant { origin + .nanoseconds(time) }
}
