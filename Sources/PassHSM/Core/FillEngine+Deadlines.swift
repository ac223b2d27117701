import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Requests that end without their content: deadlines, cancellation, shutdown.
///
/// None of these waits for a file's lock. The request is taken out and answered first; the file's state learns of it
/// afterwards, on the pool.
extension FillEngine {
    /// How many waiters are removed under one hold of a file's lock.
    private static let batch = 64

    /// Fails the waiter's request with EINTR. Does nothing when the request is completed or unknown. Does not block.
    package func cancel(_ waiter: Waiter) { fail(waiter, Self.givenUp) }

    /// Fails the waiter's request with EIO, for a caller that will ask for a smaller range instead. Otherwise as
    /// ``cancel(_:)``.
    package func withdraw(_ waiter: Waiter) {
        fail(waiter, FillError(.io, .cancelled, "the caller asks for less"))
    }

    /// Whether content of `range`, or near it (``FillProgress``), arrived within the last `time`. Does not block.
    package func isComing(_ range: Range<Int>, of file: FillFile, within time: Duration) -> Bool {
        let last = file.progress.last(of: file.granules(touching: range))
        return last > 0 && moment(last) + time >= configuration.now()
    }

    /// Whether the waiter's request is not completed yet.
    package func isWaiting(_ waiter: Waiter) -> Bool { requests.withLockedValue { $0[waiter] != nil } }

    /// Fails every request that is past its deadline, and frees the places of fetches that receive nothing. A request's
    /// deadline starts anew whenever part of its content arrives.
    ///
    /// To be called about once a second. Does not block.
    package func expire() {
        let now = configuration.now()
        watchFetches(now)
        let due = requests.withLockedValue { $0.due(now) }
        guard !due.isEmpty else { return }
        var late: [(waiter: Waiter, request: FillRequests.Request)] = []
        for (waiter, request) in due {
            if let deadline = laterDeadline(of: request, now) {
                requests.withLockedValue { $0.postpone(waiter, to: deadline) }
            } else if let request = requests.withLockedValue({ $0.take(waiter) }) {
                late.append((waiter, request))
            }
        }
        let outage = remoteHealth.outage.map { ": the remote is down: \($0.cause)" } ?? ""
        let causes = late.map { failure(of: $0.request, now, outage) }
        for (one, cause) in zip(late, causes) {
            counters.errors.add()
            answer(one.request, cause)
            one.request.task?.cancel()
        }
        forget(late)
        // A fetch reports its own errors to the destination. A deadline ends only the wait, so it is reported here.
        let fetching = fetches.withLockedValue { Set($0.all.values.map { ObjectIdentifier($0.file) }) }
        var noted: Set<ObjectIdentifier> = []
        for (one, cause) in zip(late, causes) where one.request.priority != .prefetch {
            guard let file = one.request.file, fetching.contains(ObjectIdentifier(file)),
                noted.insert(ObjectIdentifier(file)).inserted
            else { continue }
            Task(executorPreference: pool) { file.destination.fillFailed(cause) }
        }
    }

    /// The later deadline that progress has earned the request; nil when its time is over.
    private func laterDeadline(
        of request: FillRequests.Request, _ now: ContinuousClock.Instant
    ) -> ContinuousClock.Instant? {
        if let end = request.end, end < now { return nil }
        // The waiter exists, but no request was made by it yet.
        if !request.isMade { return now + .seconds(1) }
        guard request.isFill, let progress = request.file?.progress else { return nil }
        if progress.isChecking.load(ordering: .relaxed) { return now + .seconds(1) }
        let last = progress.last(of: request.granules)
        let deadline = moment(last) + configuration.deadline
        return last > 0 && deadline >= now ? deadline : nil
    }

    private func failure(
        of request: FillRequests.Request, _ now: ContinuousClock.Instant, _ outage: String
    ) -> FillError {
        let cause =
            request.deadline < now
            ? "no content arrived for \(configuration.deadline)"
            : "the fill took longer than \(configuration.maxWait ?? configuration.deadline)"
        return FillError(.io, .deadline, cause + outage)
    }

    /// Fails every waiting request with EIO, cancels every fetch, and refuses every later fill. Later exclusive writes
    /// are still granted, so that local writes can reach the disk. Does not block.
    package func shutDown() {
        refuse(for: .seconds(1 << 32))
        remoteHealth.stop()
    }

    /// As ``shutDown()``, but only for `duration`: the kernel asks again at once for pages whose read-ahead failed.
    package func refuse(for duration: Duration) {
        refusal.withLockedValue { $0 = .now + duration }
        let made = requests.withLockedValue { $0.takeMade() }
        for (_, request) in made {
            answer(request, Self.stopped)
            request.task?.cancel()
        }
        let fetching = fetches.withLockedValue { $0.all.values.map(\.file) }
        forget(made)
        var known: Set<ObjectIdentifier> = []
        for file in made.compactMap(\.request.file) + fetching where known.insert(ObjectIdentifier(file)).inserted {
            Task(executorPreference: pool) {
                if self.isRefusing { self.change(file) { $0.failFills(Self.stopped, &$1) } }
            }
        }
    }

    var isRefusing: Bool { refusal.withLockedValue { $0.map { $0 > .now } ?? false } }

    func fail(_ waiter: Waiter, _ error: FillError) {
        let taken = requests.withLockedValue { requests -> FillRequests.Request? in
            guard requests[waiter]?.isMade == true else {
                requests.update(waiter) { $0.isCancelled = true }
                return nil
            }
            return requests.take(waiter)
        }
        guard let taken else { return }
        if error.reason == .cancelled { counters.cancelled.add() } else { counters.errors.add() }
        answer(taken, error)
        taken.task?.cancel()
        forget([(waiter, taken)])
    }

    /// Removes the waiters from the states of their files, on the pool.
    private func forget(_ requests: [(waiter: Waiter, request: FillRequests.Request)]) {
        var waiters: [ObjectIdentifier: (file: FillFile, waiters: [Waiter])] = [:]
        for (waiter, request) in requests {
            guard let file = request.file else { continue }
            waiters[ObjectIdentifier(file), default: (file, [])].waiters.append(waiter)
        }
        for (file, waiters) in waiters.values {
            Task(executorPreference: pool) {
                for start in stride(from: 0, to: waiters.count, by: Self.batch) {
                    self.change(file) { state, actions in
                        for waiter in waiters[start..<min(start + Self.batch, waiters.count)] {
                            state.cancel(waiter: waiter, &actions)
                        }
                    }
                }
            }
        }
    }
}
