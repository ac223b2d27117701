import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Performs the actions that file states return: starts, promotes and cancels fetches, and runs them.
extension FillEngine {
    /// A fetch that was started and has not ended.
    struct Fetch {
        let file: FillFile
        let granules: Range<Int>
        let user: User
        var priority: FillState.Priority
        let decided = ContinuousClock.now
        let activity = Activity()
        var task: Task<Void, Never>?
        /// Set while the fetch has left its place and waits for another. Resumed with true when it has a place, with
        /// false when it was cancelled.
        var waiting: CheckedContinuation<Bool, Never>?
        var isCancelled = false

        var owner: FetchQueue<FillState.ID>.Owner { .init(user: user, file: ObjectIdentifier(file)) }
    }

    /// When a fetch last received something. Read and written without a lock.
    final class Activity: Sendable {
        /// When the fetch began or last received something; see ``FillEngine/time(_:)``.
        let last = Atomic<Int>(0)
        let isStalled = Atomic<Bool>(false)
    }

    struct Fetches {
        var queue: FetchQueue<FillState.ID>
        var all: [FillState.ID: Fetch] = [:]
        /// The fetches that have a place.
        var running: [FillState.ID: Activity] = [:]

        /// Takes the fetch's place away.
        mutating func leave(_ id: FillState.ID) {
            queue.ended(id)
            running[id] = nil
        }
    }

    func perform(_ actions: [FillState.Action], of file: FillFile) {
        for action in actions {
            switch action {
            case .complete(let waiter, let error): complete(waiter, error)
            case .grant(let write): grant(write, file)
            case .start(let id, let granules, let priority, let user):
                counters.fetches.add()
                if priority == .prefetch { counters.prefetches.add() }
                let fetch = Fetch(file: file, granules: granules, user: user, priority: priority)
                fetches.withLockedValue {
                    $0.all[id] = fetch
                    $0.queue.add(id, priority, fetch.owner)
                }
                catchUp(id, priority, file)
                startFetches()
            case .promote(let id, let priority): promote(id, priority)
            case .cancel(let id): cancelFetch(id)
            case .check:
                file.progress.isChecking.store(true, ordering: .relaxed)
                Task(executorPreference: pool) {
                    let error = file.destination.checkContent()
                    if error != nil { self.counters.errors.add() }
                    self.change(file) { $0.checked(error, &$1) }
                    file.progress.isChecking.store(false, ordering: .relaxed)
                }
            }
        }
    }

    /// Between the decision to fetch and now, another thread may have cancelled or promoted the fetch, or shut the
    /// engine down. That thread did not find the fetch, so its change is applied here.
    private func catchUp(_ id: FillState.ID, _ priority: FillState.Priority, _ file: FillFile) {
        if isRefusing { change(file) { $0.failFills(Self.stopped, &$1) } }
        switch file.state.withLockedValue({ $0.standing(of: id) }) {
        case .cancelled: cancelFetch(id)
        case .wanted(let now) where now < priority: promote(id, now)
        case .wanted, nil: break
        }
    }

    private func promote(_ id: FillState.ID, _ priority: FillState.Priority) {
        fetches.withLockedValue {
            $0.all[id]?.priority = priority
            $0.queue.promote(id, to: priority)
        }
        startFetches()
    }

    private func cancelFetch(_ id: FillState.ID) {
        enum Way {
            /// The fetch never ran.
            case end(FillFile)
            case resume(CheckedContinuation<Bool, Never>)
            case cancel(Task<Void, Never>?)
        }
        let way = fetches.withLockedValue { fetches -> Way in
            guard fetches.queue.removeWaiting(id) else {
                fetches.all[id]?.isCancelled = true
                return .cancel(fetches.all[id]?.task)
            }
            if let waiting = fetches.all[id]?.waiting {
                fetches.all[id]?.isCancelled = true
                fetches.all[id]?.waiting = nil
                return .resume(waiting)
            }
            return fetches.all.removeValue(forKey: id).map { .end($0.file) } ?? .cancel(nil)
        }
        switch way {
        case .end(let file): change(file) { $0.fetchEnded(id, error: nil, &$1) }
        case .resume(let waiting): waiting.resume(returning: false)
        case .cancel(let task): task?.cancel()
        }
    }

    private func startFetches() {
        let now = time(configuration.now())
        while let (id, fetch) = fetches.withLockedValue({ fetches -> (FillState.ID, Fetch)? in
            guard let id = fetches.queue.next(), let fetch = fetches.all[id] else { return nil }
            fetch.activity.last.store(now, ordering: .relaxed)
            fetch.activity.isStalled.store(false, ordering: .relaxed)
            fetches.running[id] = fetch.activity
            fetches.all[id]?.waiting = nil
            return (id, fetch)
        }) {
            if let waiting = fetch.waiting {
                waiting.resume(returning: true)
                continue
            }
            let task = Task(executorPreference: pool) { await self.run(id, fetch) }
            let isCancelled = fetches.withLockedValue { fetches in
                fetches.all[id]?.task = task
                return fetches.all[id]?.isCancelled ?? false
            }
            if isCancelled { task.cancel() }
        }
    }

    // MARK: Places

    /// Frees the places of fetches that have received nothing for the stall time.
    func watchFetches(_ now: ContinuousClock.Instant) {
        let before = time(now - configuration.stallTime)
        let isFree = fetches.withLockedValue { fetches in
            var isFree = false
            for (id, activity) in fetches.running
            where activity.last.load(ordering: .relaxed) < before && !activity.isStalled.load(ordering: .relaxed) {
                guard fetches.queue.stall(id) else { continue }
                activity.isStalled.store(true, ordering: .relaxed)
                isFree = true
            }
            return isFree
        }
        if isFree { startFetches() }
    }

    /// Notes that the fetch received something.
    private func noteArrival(_ id: FillState.ID, _ activity: Activity) {
        activity.last.store(time(configuration.now()), ordering: .relaxed)
        guard activity.isStalled.load(ordering: .relaxed) else { return }
        fetches.withLockedValue { $0.queue.resume(id) }
        activity.isStalled.store(false, ordering: .relaxed)
    }

    /// Gives the place to other fetches while this one waits for something other than the remote's answer.
    private func leavePlace(_ id: FillState.ID) {
        fetches.withLockedValue { $0.leave(id) }
        startFetches()
    }

    /// Waits until the fetch has a place again. False when it was cancelled.
    private func takePlace(_ id: FillState.ID) async -> Bool {
        await withCheckedContinuation { continuation in
            let isWanted = fetches.withLockedValue { fetches in
                guard let fetch = fetches.all[id], !fetch.isCancelled else { return false }
                fetches.all[id]?.waiting = continuation
                fetches.queue.add(id, fetch.priority, fetch.owner)
                return true
            }
            if isWanted { startFetches() } else { continuation.resume(returning: false) }
        }
    }

    // MARK: One fetch

    private func run(_ id: FillState.ID, _ wanted: Fetch) async {
        let file = wanted.file
        var rest = wanted.granules
        counters.queueNanoseconds.add(.now - wanted.decided)
        var error = await fetch(id, wanted, &rest)
        var retries = configuration.retries
        retries.maxPause = configuration.deadline
        var attempt = 1
        while let failure = error, !rest.isEmpty, let pause = pause(after: failure, retries, attempt) {
            leavePlace(id)
            do { try await Task.sleep(for: pause) } catch { break }
            guard await takePlace(id) else { break }
            counters.retries.add()
            error = await fetch(id, wanted, &rest)
            attempt += 1
        }
        let isCancelled = fetches.withLockedValue { fetches in
            fetches.leave(id)
            return fetches.all.removeValue(forKey: id)?.isCancelled ?? false
        }
        if let error, !isCancelled {
            counters.errors.add()
            file.destination.fillFailed(error)
        }
        change(file) { $0.fetchEnded(id, error: error, &$1) }
        startFetches()
    }

    /// How long to wait before the fetch is tried again; nil to give up. With ``RemoteHealth/Offline/block`` it goes on
    /// through an outage. Otherwise it stops once the remote counts as down.
    private func pause(after failure: FillError, _ retries: RetryPolicy, _ attempt: Int) -> Duration? {
        guard failure.isOutage else { return retries.pause(after: failure, attempt: attempt) }
        if remoteHealth.offline == .block { return retries.pauseOfOutage(attempt: attempt) }
        return remoteHealth.isDown ? nil : retries.pause(after: failure, attempt: attempt)
    }

    /// Returns when the remote may be asked. The fetch gives up its place while it waits for the remote to return.
    private func waitUntilReachable(_ id: FillState.ID) async throws(FillError) {
        while remoteHealth.isDown && remoteHealth.offline == .block {
            leavePlace(id)
            try await remoteHealth.waitUntilReachable()
            guard await takePlace(id) else {
                throw FillError(.interrupted, .cancelled, "cancelled while the remote was down")
            }
        }
        try await remoteHealth.waitUntilReachable()
    }

    /// Asks the remote once. Afterwards `granules` are those that have not arrived.
    private func fetch(_ id: FillState.ID, _ wanted: Fetch, _ granules: inout Range<Int>) async -> FillError? {
        let (file, end) = (wanted.file, granules.upperBound)
        do throws(FillError) { try await waitUntilReachable(id) } catch { return error }
        var assembler = GranuleAssembler(granules: granules, layout: file.layout)
        let range = file.layout.bytes(of: granules)
        let began = ContinuousClock.now
        // Waiters are answered before the remote sends more; that time is not the remote's.
        var ownTime = Duration.zero
        defer { counters.remoteNanoseconds.add(.now - began - ownTime) }
        var firstByte: ContinuousClock.Instant?
        var start: BandwidthEstimator.Start?
        updateEstimate { start = $0.began(began) }
        defer { if let start { updateEstimate { $0.ended(start, firstByte: firstByte, now: .now) } } }
        do throws(FillError) {
            try await source.read(file.object, range: range) { bytes throws(FillError) in
                if firstByte == nil { firstByte = .now }
                noteArrival(id, wanted.activity)
                updateEstimate { $0.arrived(bytes.count) }
                try assembler.add(bytes) { whole, content throws(FillError) in
                    let received = ContinuousClock.now
                    try file.destination.fill(whole, with: content)
                    counters.writeNanoseconds.add(.now - received)
                    granules = whole.upperBound..<end
                    counters.granulesFetched.add(whole.count)
                    counters.bytesFetched.add(content.count)
                    file.progress.arrived(whole, at: time(configuration.now()))
                    change(file) { $0.filled(id, whole, &$1) }
                    ownTime += .now - received
                }
            }
            if !assembler.isFinished {
                throw FillError(
                    .io, .remoteFailed,
                    "the remote sent \(assembler.received) of \(range.count) bytes at offset \(range.lowerBound)")
            }
            remoteHealth.note(nil, file.object.key, began: began)
            return nil
        } catch {
            remoteHealth.note(error, file.object.key, began: began)
            return error
        }
    }
}
