import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Fetches missing content, once for all that wait for it. Both front ends use this one engine.
///
/// Every method may be called on any thread, and none blocks. A request is made by a *waiter*, which the caller
/// makes first, so that the request can be cancelled at any later moment. A waiter's completion is called exactly once,
/// on the caller's thread or on a thread of the pool.
package final class FillEngine: Sendable {
    /// The limits and times of an engine.
    package struct Configuration: Sendable {
        /// How many fetches run at the remote at once.
        package var concurrentFetches = 64
        /// How many stalled fetches may exist beside these, so that objects that hang do not block others.
        package var stalledFetches = 256
        /// How long a fetch receives nothing before it counts as stalled.
        package var stallTime: Duration = .seconds(2)
        /// How far read-ahead runs in front of a sequential reader, in bytes. ``BandwidthEstimator`` raises it, up to
        /// ``maxReadAhead``, where the delay to the remote is long. 0 turns read-ahead off.
        package var readAhead = 8 << 20
        /// The upper bound of the read-ahead, in bytes.
        package var maxReadAhead = 64 << 20
        /// How long a request waits without any arrival of its content before it fails with EIO.
        package var deadline: Duration = .seconds(60)
        /// How long a request waits altogether, whatever arrives; nil for no such limit.
        package var maxWait: Duration?
        /// When a fetch that failed is tried again. Its `maxPause` is replaced by ``deadline``.
        package var retries = RetryPolicy()
        /// How fills behave while the remote is down.
        package var offline = RemoteHealth.Offline.block
        /// When the remote counts as down.
        package var circuitBreaker = CircuitBreaker.Policy()
        /// The clock for deadlines and stalled fetches.
        package var now: @Sendable () -> ContinuousClock.Instant = { .now }

        package init() {}
    }

    package typealias Waiter = UInt64
    package typealias Completion = @Sendable (FillError?) -> Void

    /// The uid that a request is made for; 0 where none is known.
    package typealias User = FillState.User

    package let source: any RemoteStore
    package let counters = EngineCounters()
    /// Tracks whether the remote is reachable.
    package let remoteHealth: RemoteHealth
    let configuration: Configuration
    let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    /// A leaf lock.
    private let estimator: NIOLockedValueBox<BandwidthEstimator>
    // The last results of ``estimator``, in bytes.
    private let window: Atomic<Int>
    private let fetchSize: Atomic<Int>
    // Both are leaf locks: nothing is called while one is held, and no two are held at once.
    let requests = NIOLockedValueBox(FillRequests())
    let fetches: NIOLockedValueBox<Fetches>
    private let origin: ContinuousClock.Instant
    /// Until this moment every fill is refused; nil when none is.
    let refusal = NIOLockedValueBox<ContinuousClock.Instant?>(nil)

    /// - Parameter pool: runs the fetches; its threads may block.
    package init(source: any RemoteStore, configuration: Configuration = .init(), pool: any TaskExecutor) {
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

    /// Updates the estimate, and publishes the window and fetch size for the next fetches.
    func updateEstimate(_ body: (inout BandwidthEstimator) -> Void) {
        let now = estimator.withLockedValue { estimator in
            body(&estimator)
            return (window: estimator.window, fetchSize: estimator.fetchSize)
        }
        if window.load(ordering: .relaxed) != now.window { window.store(now.window, ordering: .relaxed) }
        if fetchSize.load(ordering: .relaxed) != now.fetchSize { fetchSize.store(now.fetchSize, ordering: .relaxed) }
    }

    /// How many requests wait; shown by `status`.
    package var waiting: Int { requests.withLockedValue(\.count) }

    static let stopped = FillError(.io, .shutdown, "the file system is being unmounted")
    static let givenUp = FillError(.interrupted, .cancelled, "the caller gave up")

    // MARK: Requests

    /// Whether the lower file can answer a read of `range` now. Counts as an access for the read-ahead.
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

    /// Makes a waiter. `completion` is called exactly once, after a request was made by the waiter.
    package func makeWaiter(_ completion: @escaping Completion) -> Waiter {
        let waiter = makeID()
        let now = configuration.now()
        let end = configuration.maxWait.map { now + $0 }
        requests.withLockedValue {
            $0.add(waiter, .init(made: now, deadline: now + configuration.deadline, end: end, completion: completion))
        }
        return waiter
    }

    /// Completes the waiter without an error once the lower file holds every byte of `range`.
    ///
    /// - Parameter user: on whose behalf; users share the places at the remote.
    package func ensureResident(
        _ range: Range<Int>, of file: FillFile, priority: FillState.Priority = .demand, user: User = 0, waiter: Waiter
    ) {
        request(waiter, file, range, priority) { state, actions in
            state.limits = limits(granuleSize: state.layout.granuleSize)
            switch state.wait(waiter, for: range, priority, user: user, &actions) {
            case .present:
                counters.hits.add()
                return true
            case .joined: counters.joins.add()
            case .missed: counters.misses.add()
            }
            return false
        }
    }

    /// Raises a prefetch to demand, because a thread waits for it after all. Does nothing when the waiter is completed,
    /// or is demand already.
    package func becomeDemand(_ waiter: Waiter) {
        let file = requests.withLockedValue { requests -> FillFile? in
            guard let request = requests[waiter], request.isFill, request.priority > .demand else { return nil }
            requests.update(waiter) { $0.priority = .demand }
            return request.file
        }
        if let file { change(file) { $0.promote(waiter, to: .demand, &$1) } }
    }

    /// Returns once the lower file holds every byte of `range`.
    ///
    /// - Throws: the error of the fill; `.cancelled` as soon as the task is cancelled.
    package func waitForResidence(
        of range: Range<Int>, in file: FillFile, priority: FillState.Priority, user: User = 0
    ) async throws(FillError) {
        let made = Mutex<Waiter?>(nil)
        let error = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<FillError?, Never>) in
                let waiter = makeWaiter { continuation.resume(returning: $0) }
                made.withLock { $0 = waiter }
                ensureResident(range, of: file, priority: priority, user: user, waiter: waiter)
                // A cancellation that came before the waiter existed had no waiter to cancel.
                if Task.isCancelled { cancel(waiter) }
            }
        } onCancel: {
            if let waiter = made.withLock({ $0 }) { cancel(waiter) }
        }
        if let error { throw error }
    }

    /// Reserves `granules` for a local change. The waiter is completed without an error once no fetch touches them. No
    /// fetch will, until ``endExclusiveWrite(_:of:present:)`` is called with the waiter. Waiters for these granules
    /// wait for the end of the exclusive write.
    ///
    /// - Parameter cancelFetches: cancels fetches of these granules that are under way, instead of waiting for them.
    package func beginExclusiveWrite(
        _ granules: Range<Int>, of file: FillFile, cancelFetches: Bool = false, waiter: Waiter
    ) {
        request(waiter, file, nil, .demand) { state, actions in
            state.beginExclusiveWrite(waiter, granules, cancelFetches: cancelFetches, &actions)
        }
    }

    /// Completes the waiter without an error, for a caller that has nothing to wait for.
    package func complete(_ waiter: Waiter) { complete(waiter, nil) }

    /// Asks the remote which version it has under `key` now, and passes it to `found`. The waiter is completed when
    /// `found` returns or throws.
    ///
    /// `found` runs on the pool and may block. It may be called even though the waiter was cancelled.
    ///
    /// - Parameter timeout: how long to wait before the waiter is completed with an error; nil for no limit.
    package func lookUp(
        _ key: RemoteKey, waiter: Waiter, timeout: Duration? = nil,
        found: @escaping @Sendable (RemoteObject, RemoteEntry.Time) throws(FillError) -> Void
    ) {
        if let refusal = isRefusing ? Self.stopped : remoteHealth.refusal {
            complete(waiter, refusal)
            return
        }
        let timer = timeout.map { timeout in
            Task(executorPreference: pool) {
                guard (try? await Task.sleep(for: timeout)) != nil else { return }
                self.complete(waiter, FillError(.io, .remoteFailed, "the remote did not answer within \(timeout)"))
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
            self.complete(waiter, failure)
        }
        let isCancelled = requests.withLockedValue { requests in
            requests.update(waiter) { $0.task = task }
            return requests[waiter]?.isCancelled ?? false
        }
        if isRefusing { return fail(waiter, Self.stopped) }
        if isCancelled { cancel(waiter) }
    }

    /// Ends the waiter's exclusive write. `granules` hold local content now.
    package func endExclusiveWrite(_ waiter: Waiter, of file: FillFile, present granules: Range<Int>) {
        change(file) { $0.endExclusiveWrite(waiter, present: granules, &$1) }
    }

    /// Notes that the file was truncated to `size`. The caller holds an exclusive write on everything from `size` on.
    package func truncated(_ file: FillFile, to size: Int) {
        change(file) { $0.truncated(to: size, &$1) }
    }

    private func request(
        _ waiter: Waiter, _ file: FillFile, _ range: Range<Int>?, _ priority: FillState.Priority,
        _ make: (inout FillState, inout [FillState.Action]) -> Bool
    ) {
        // The first layout will do: the current one needs the file's lock, and its limit is never higher.
        let granules = range.map { file.granules(touching: $0) } ?? 0..<0
        let isFill = range != nil
        let isCancelled = requests.withLockedValue { requests in
            requests.update(waiter) { request in
                request.file = file
                request.granules = granules
                request.isFill = isFill
                request.priority = priority
            }
            return requests[waiter]?.isCancelled ?? true
        }
        if isCancelled || (isFill && isRefusing) {
            complete(waiter, isCancelled ? Self.givenUp : Self.stopped)
            return
        }
        var actions: [FillState.Action] = []
        let isDone = file.state.withLockedValue { make(&$0, &actions) }
        if isDone && isFill { complete(waiter, nil) } else if isDone { grant(waiter, file) }
        perform(actions, of: file)
        if isFill && isRefusing {
            fail(waiter, Self.stopped)
            change(file) { $0.failFills(Self.stopped, &$1) }
        }
        // If another thread took the request meanwhile, it may have told the state before this waiter was in it.
        if !isDone && !isWaiting(waiter) { change(file) { $0.cancel(waiter: waiter, &$1) } }
    }

    /// Completes the waiter of a granted exclusive write. Ends the exclusive write at once when the waiter was
    /// completed before.
    func grant(_ waiter: Waiter, _ file: FillFile) {
        if !complete(waiter, nil) { endExclusiveWrite(waiter, of: file, present: 0..<0) }
    }

    /// Completes the request. False when it was completed before.
    @discardableResult
    func complete(_ waiter: Waiter, _ error: FillError?) -> Bool {
        guard let request = requests.withLockedValue({ $0.take(waiter) }) else { return false }
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

    /// A moment in the form that ``FillProgress`` stores: nanoseconds since the engine started, at least 1.
    func time(_ moment: ContinuousClock.Instant) -> Int {
        let passed = (moment - origin).components
        return max(1, Int(passed.seconds) * 1_000_000_000 + Int(passed.attoseconds / 1_000_000_000))
    }

    func moment(_ time: Int) -> ContinuousClock.Instant { origin + .nanoseconds(time) }
}
