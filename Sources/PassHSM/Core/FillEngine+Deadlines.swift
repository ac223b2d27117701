import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The ends of requests that do not come from their content: deadlines, cancelling, shutdown.
///
/// None of these waits for a file's lock, whatever is done under it: the request is taken out and answered, and the file's
/// state hears of it afterwards, on the pool.
extension FillEngine {
    /// Waiters that a file's lock is held for at once.
    private static let batch = 64

    /// Fails the request of the ticket with EINTR. Does nothing when it is completed or unknown. Does not block.
    package func cancel(_ ticket: Ticket) { fail(ticket, Self.givenUp) }

    /// Fails the request of the ticket with EIO, for a caller who asks for less then. As ``cancel(_:)`` otherwise.
    package func withdraw(_ ticket: Ticket) {
        fail(ticket, FillError(.io, .cancelled, "the caller asks for less"))
    }

    /// Whether something of `range`, or near to it, has come in the last `time`.
    package func isComing(_ range: Range<Int>, of file: FillFile, within time: Duration) -> Bool {
        let last = file.progress.last(of: file.granules(touching: range))
        return last > 0 && moment(last) + time >= configuration.now()
    }

    /// Whether the request of the ticket is not completed yet.
    package func isWaiting(_ ticket: Ticket) -> Bool { requests.withLockedValue { $0[ticket] != nil } }

    /// Fails every request that is past its deadline, which begins anew whenever something of its content has come, and
    /// frees the places of fetches of which nothing comes. To be called about once a second. Does not block.
    package func expire() {
        let now = configuration.now()
        watchFetches(now)
        let due = requests.withLockedValue { $0.due(now) }
        guard !due.isEmpty else { return }
        var late: [(ticket: Ticket, request: FillRequests.Request)] = []
        for (ticket, request) in due {
            if let deadline = laterDeadline(of: request, now) {
                requests.withLockedValue { $0.postpone(ticket, to: deadline) }
            } else if let request = requests.withLockedValue({ $0.take(ticket) }) {
                late.append((ticket, request))
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
        // Of other errors the fetch tells; here it was the fetch that was waited for.
        let fetching = fetches.withLockedValue { Set($0.all.values.map { ObjectIdentifier($0.file) }) }
        var noted: Set<ObjectIdentifier> = []
        for (one, cause) in zip(late, causes) where one.request.priority != .prefetch {
            guard let file = one.request.file, fetching.contains(ObjectIdentifier(file)),
                noted.insert(ObjectIdentifier(file)).inserted
            else { continue }
            Task(executorPreference: pool) { file.destination.fillFailed(cause) }
        }
    }

    /// Nil: it has had its time.
    private func laterDeadline(
        of request: FillRequests.Request, _ now: ContinuousClock.Instant
    ) -> ContinuousClock.Instant? {
        if let end = request.end, end < now { return nil }
        // Nothing is asked for yet.
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
            ? "nothing of it came for \(configuration.deadline)"
            : "not filled within \(configuration.maxWait ?? configuration.deadline)"
        return FillError(.io, .deadline, cause + outage)
    }

    /// Fails everything that waits with EIO, cancels every fetch, and lets nothing wait for a fill from now on. Claims are
    /// still granted: what was written locally can be brought to disk. Does not block.
    package func shutDown() {
        refuse(for: .seconds(1 << 32))
        remoteHealth.stop()
    }

    /// As ``shutDown()``, but only for a while: a reader whose read-ahead fails asks again at once.
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

    func fail(_ ticket: Ticket, _ error: FillError) {
        let taken = requests.withLockedValue { requests -> FillRequests.Request? in
            guard requests[ticket]?.isMade == true else {
                requests.update(ticket) { $0.isCancelled = true }
                return nil
            }
            return requests.take(ticket)
        }
        guard let taken else { return }
        if error.reason == .cancelled { counters.cancelled.add() } else { counters.errors.add() }
        answer(taken, error)
        taken.task?.cancel()
        forget([(ticket, taken)])
    }

    /// Tells the files that nobody waits under the tickets any more.
    private func forget(_ requests: [(ticket: Ticket, request: FillRequests.Request)]) {
        var tickets: [ObjectIdentifier: (file: FillFile, tickets: [Ticket])] = [:]
        for (ticket, request) in requests {
            guard let file = request.file else { continue }
            tickets[ObjectIdentifier(file), default: (file, [])].tickets.append(ticket)
        }
        for (file, tickets) in tickets.values {
            Task(executorPreference: pool) {
                for start in stride(from: 0, to: tickets.count, by: Self.batch) {
                    self.change(file) { state, actions in
                        for ticket in tickets[start..<min(start + Self.batch, tickets.count)] {
                            state.abandon(ticket, &actions)
                        }
                    }
                }
            }
        }
    }
}
