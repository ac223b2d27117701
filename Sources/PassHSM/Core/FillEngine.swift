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
        /// Bytes that read-ahead runs in front of a sequential reader at most; more where the line to the remote is long
        /// (``Pace``).
        package var readAhead = 8 << 20
        /// And not more than this.
        package var mostReadAhead = 64 << 20
        /// How long a request waits, while nothing of its content comes, before it fails with EIO.
        package var deadline: Duration = .seconds(60)
        /// How long it waits at most, whatever comes; nil: for ever.
        package var longestWait: Duration?
        /// When a remote that fails is asked again; whatever it says there, no pause is longer than ``deadline``.
        package var retries = RetryPolicy()
        /// What becomes of fills while the remote is down.
        package var offline = RemoteGate.Offline.block
        /// When it is known to be.
        package var circuit = Circuit.Policy()

        package init() {}
    }

    package typealias Ticket = UInt64
    package typealias Completion = @Sendable (FillError?) -> Void

    /// One waiter, of a range or of a claim.
    private struct Request {
        var file: FillFile?
        let made = ContinuousClock.now
        var deadline: ContinuousClock.Instant
        var isFill = false
        /// Cancelled before the request was made under the ticket.
        var isCancelled = false
        /// Of a request that is of no file's content.
        var task: Task<Void, Never>?
        let completion: Completion
    }

    /// A fetch that was started and has not ended.
    struct Fetch {
        let file: FillFile
        let granules: Range<Int>
        let decided = ContinuousClock.now
        var task: Task<Void, Never>?
        var isCancelled = false
    }

    struct Fetches {
        var queue: FetchQueue<FillState.ID>
        var all: [FillState.ID: Fetch] = [:]
    }

    package let source: any RemoteSource
    package let counters = EngineCounters()
    /// Knows whether the remote is there.
    package let gate: RemoteGate
    let configuration: Configuration
    let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    /// A leaf lock.
    private let pace: NIOLockedValueBox<Pace>
    // What ``pace`` says, in bytes.
    private let window: Atomic<Int>
    private let fetchSize: Atomic<Int>
    // Both are leaf locks: nothing is called while one is held, and no two are held at once.
    private let requests = NIOLockedValueBox<[Ticket: Request]>([:])
    let fetches: NIOLockedValueBox<Fetches>
    /// Until then nothing may wait for a fill.
    private let refusal = NIOLockedValueBox<ContinuousClock.Instant?>(nil)

    /// - Parameter pool: runs the fetches; its threads may block.
    package init(source: any RemoteSource, configuration: Configuration = .init(), pool: any TaskExecutor) {
        self.source = source
        self.configuration = configuration
        self.pool = pool
        let most = configuration.readAhead == 0 ? 0 : configuration.mostReadAhead
        let sizes = source.fetchUnit...max(source.fetchUnit, source.nearFetchUnit)
        pace = NIOLockedValueBox(Pace(least: configuration.readAhead, most: most, fetchSizes: sizes))
        window = Atomic(configuration.readAhead)
        fetchSize = Atomic(source.fetchUnit)
        gate = RemoteGate(source, configuration.offline, configuration.circuit, pool: pool)
        fetches = NIOLockedValueBox(Fetches(queue: FetchQueue(limit: configuration.concurrentFetches)))
    }

    @Sendable func makeID() -> FillState.ID { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

    func limits(granuleSize: Int) -> FillState.Limits {
        let (window, fetchSize) = (window.load(ordering: .relaxed), fetchSize.load(ordering: .relaxed))
        var limits = FillState.Limits(
            fetchGranules: fetchSize / granuleSize, readAheadGranules: window / granuleSize)
        limits.fetchesPerWaiter = max(limits.fetchesPerWaiter, window / fetchSize)
        return limits
    }

    /// Notes how a fetch fares, and what that means for the next ones.
    func keepPace(_ body: (inout Pace) -> Void) {
        let now = pace.withLockedValue { pace in
            body(&pace)
            return (window: pace.window, fetchSize: pace.fetchSize)
        }
        if window.load(ordering: .relaxed) != now.window { window.store(now.window, ordering: .relaxed) }
        if fetchSize.load(ordering: .relaxed) != now.fetchSize { fetchSize.store(now.fetchSize, ordering: .relaxed) }
    }

    /// How many requests wait, for `status`.
    package var waiting: Int { requests.withLockedValue(\.count) }

    // MARK: Requests

    /// Whether a read of `range` can be answered from the lower file now. Feeds the read-ahead.
    package func isResident(_ range: Range<Int>, of file: FillFile) -> Bool {
        var actions: [FillState.Action] = []
        let present = file.state.withLockedValue { state in
            state.limits = limits(granuleSize: state.layout.granuleSize)
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
        requests.withLockedValue { $0[ticket] = Request(deadline: deadline, completion: completion) }
        return ticket
    }

    /// Completes the ticket without error once every byte of `range` can be read from the lower file.
    package func ensureResident(
        _ range: Range<Int>, of file: FillFile, priority: FillState.Priority = .demand, ticket: Ticket
    ) {
        request(ticket, file, isFill: true) { state, actions in
            state.limits = limits(granuleSize: state.layout.granuleSize)
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

    /// Returns once every byte of `range` can be read from the lower file.
    ///
    /// - Throws: why not; `.cancelled` as soon as the task is.
    package func waitForResidence(
        of range: Range<Int>, in file: FillFile, priority: FillState.Priority
    ) async throws(FillError) {
        let made = Mutex<Ticket?>(nil)
        let error = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<FillError?, Never>) in
                let ticket = makeTicket { continuation.resume(returning: $0) }
                made.withLock { $0 = ticket }
                ensureResident(range, of: file, priority: priority, ticket: ticket)
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
        if let refusal = isRefusing ? Self.stopped : gate.refusal { return complete(ticket, refusal) }
        let task = Task(executorPreference: pool) {
            let began = ContinuousClock.now
            var failure: FillError?
            do throws(FillError) {
                let (object, modified) = try await self.source.current(key)
                self.gate.note(nil, key, began: began)
                try found(object, modified)
            } catch {
                failure = error
                self.gate.note(error, key, began: began)
            }
            self.complete(ticket, failure)
        }
        let isCancelled = requests.withLockedValue { requests in
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
    package func isWaiting(_ ticket: Ticket) -> Bool { requests.withLockedValue { $0[ticket] != nil } }

    /// Fails every request that is past its deadline, which begins anew whenever something of its content has come. To be
    /// called about once a second.
    package func expire(now: ContinuousClock.Instant = .now) {
        let fills = requests.withLockedValue { $0.filter(\.value.isFill).map { ($0.key, $0.value.file) } }
        let progressing = fills.filter { ticket, file in
            file?.state.withLockedValue { $0.takeProgress(of: ticket) } ?? false
        }
        let late = requests.withLockedValue { requests in
            for (ticket, _) in progressing { requests[ticket]?.deadline = now + configuration.deadline }
            return requests.filter { _, request in
                request.deadline < now || configuration.longestWait.map { request.made + $0 < now } ?? false
            }
        }
        guard !late.isEmpty else { return }
        let outage = gate.outage.map { ": the remote is down: \($0.cause)" } ?? ""
        func failure(of request: Request) -> FillError {
            let cause =
                request.deadline < now
                ? "nothing of it came for \(configuration.deadline)"
                : "not filled within \(configuration.longestWait ?? configuration.deadline)"
            return FillError(.io, .deadline, cause + outage)
        }
        let fetching = fetches.withLockedValue { $0.all.values.map(\.file) }
        for (ticket, request) in late { fail(ticket, failure(of: request)) }
        // Of other errors the fetch tells; here it was the fetch that was waited for.
        var noted: Set<ObjectIdentifier> = []
        for request in late.values {
            guard let file = request.file, fetching.contains(where: { $0 === file }),
                noted.insert(ObjectIdentifier(file)).inserted
            else { continue }
            let error = failure(of: request)
            Task(executorPreference: pool) { file.destination.fillFailed(error) }
        }
    }

    /// Fails everything that waits with EIO, cancels every fetch, and lets nothing wait for a fill from now on. Claims are
    /// still granted: what was written locally can be brought to disk.
    package func shutDown() {
        refuse(for: .seconds(1 << 32))
        gate.stop()
    }

    /// As ``shutDown()``, but only for a while: a reader whose read-ahead fails asks again at once.
    package func refuse(for duration: Duration) {
        refusal.withLockedValue { $0 = .now + duration }
        let files =
            requests.withLockedValue { $0.values.compactMap(\.file) }
            + fetches.withLockedValue { $0.all.values.map(\.file) }
        for file in files { change(file) { $0.failAll(Self.stopped, &$1) } }
        for ticket in requests.withLockedValue({ $0.filter { $0.value.task != nil }.map(\.key) }) {
            fail(ticket, Self.stopped)
        }
    }

    var isRefusing: Bool { refusal.withLockedValue { $0.map { $0 > .now } ?? false } }

    static let stopped = FillError(.io, .shutdown, "the file system is being unmounted")

    private func request(
        _ ticket: Ticket, _ file: FillFile, isFill: Bool,
        _ make: (inout FillState, inout [FillState.Action]) -> Bool
    ) {
        let isCancelled = requests.withLockedValue { requests in
            requests[ticket]?.file = file
            requests[ticket]?.isFill = isFill
            return requests[ticket]?.isCancelled ?? true
        }
        if isCancelled || (isFill && isRefusing) {
            complete(ticket, isCancelled ? FillError(.interrupted, .cancelled, "the caller gave up") : Self.stopped)
            return
        }
        var actions: [FillState.Action] = []
        let isDone = file.state.withLockedValue { make(&$0, &actions) }
        if isDone { complete(ticket, nil) }
        perform(actions, of: file)
        // A shutdown or a cancel between the check and the lock saw no waiter to fail.
        if isFill && isRefusing { change(file) { $0.failAll(Self.stopped, &$1) } }
        if requests.withLockedValue({ $0[ticket]?.isCancelled ?? false }) { cancel(ticket) }
    }

    private func fail(_ ticket: Ticket, _ error: FillError) {
        let (file, task) = requests.withLockedValue { requests in
            requests[ticket]?.isCancelled = true
            return (requests[ticket]?.file, requests[ticket]?.task)
        }
        guard let file else {
            task?.cancel()
            return task == nil ? () : complete(ticket, error)
        }
        var actions: [FillState.Action] = []
        guard file.state.withLockedValue({ $0.abandon(ticket, &actions) }) else { return }
        perform(actions, of: file)
        if error.reason == .cancelled { counters.cancelled.add() } else { counters.errors.add() }
        complete(ticket, error)
    }

    func complete(_ ticket: Ticket, _ error: FillError?) {
        guard let request = requests.withLockedValue({ $0.removeValue(forKey: ticket) }) else { return }
        guard request.isFill, error == nil else { return request.completion(error) }
        let completed = ContinuousClock.now
        counters.waitNanoseconds.add(completed - request.made)
        request.completion(nil)
        counters.answerNanoseconds.add(.now - completed)
    }

    func change(_ file: FillFile, _ body: (inout FillState, inout [FillState.Action]) -> Void) {
        var actions: [FillState.Action] = []
        let isComplete = file.state.withLockedValue { state in
            body(&state, &actions)
            return state.isComplete
        }
        if isComplete { file.destination.contentComplete() }
        perform(actions, of: file)
    }
}
