import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// What the states of files want done: fetches, one after the other and at once.
extension FillEngine {
    func perform(_ actions: [FillState.Action], of file: FillFile) {
        for action in actions {
            switch action {
            case .finish(let waiter, let error): complete(waiter, error)
            case .start(let id, let granules, let priority):
                counters.fetches.add()
                if priority == .prefetch { counters.prefetches.add() }
                fetches.withLockedValue {
                    $0.all[id] = Fetch(file: file, granules: granules)
                    $0.queue.add(id, priority)
                }
                catchUp(id, priority, file)
                startFetches()
            case .promote(let id):
                fetches.withLockedValue { $0.queue.promote(id) }
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
        switch file.state.withLockedValue({ $0.standing(of: id) }) {
        case .cancelled: cancelFetch(id)
        case .wanted(let now) where now < priority: fetches.withLockedValue { $0.queue.promote(id) }
        case .wanted, nil: break
        }
    }

    private func cancelFetch(_ id: FillState.ID) {
        let (file, task) = fetches.withLockedValue { fetches -> (FillFile?, Task<Void, Never>?) in
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
        while let (id, fetch) = fetches.withLockedValue({ fetches in
            fetches.queue.next().flatMap { id in fetches.all[id].map { (id, $0) } }
        }) {
            let task = Task(executorPreference: pool) { await self.run(id, fetch) }
            let isCancelled = fetches.withLockedValue { fetches in
                fetches.all[id]?.task = task
                return fetches.all[id]?.isCancelled ?? false
            }
            if isCancelled { task.cancel() }
        }
    }

    private func run(_ id: FillState.ID, _ wanted: Fetch) async {
        let file = wanted.file
        var rest = wanted.granules
        counters.queueNanoseconds.add(.now - wanted.decided)
        var error = await fetch(id, file, &rest)
        var retries = configuration.retries
        retries.longestPause = configuration.deadline
        var attempt = 1
        while let failure = error, !rest.isEmpty, let pause = pause(after: failure, retries, attempt) {
            do { try await Task.sleep(for: pause) } catch { break }
            counters.retries.add()
            error = await fetch(id, file, &rest)
            attempt += 1
        }
        let isCancelled = fetches.withLockedValue { fetches in
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

    /// Who waits until the remote is back asks on; otherwise nobody asks one that is known to be down.
    private func pause(after failure: FillError, _ retries: RetryPolicy, _ attempt: Int) -> Duration? {
        guard failure.isOutage else { return retries.pause(after: failure, attempt: attempt) }
        if gate.offline == .block { return retries.pauseOfOutage(attempt: attempt) }
        return gate.isDown ? nil : retries.pause(after: failure, attempt: attempt)
    }

    /// Asks the remote once; `granules` become those that have not come.
    private func fetch(_ id: FillState.ID, _ file: FillFile, _ granules: inout Range<Int>) async -> FillError? {
        let end = granules.upperBound
        var assembler = GranuleAssembler(granules: granules, layout: file.layout)
        let range = file.layout.bytes(of: granules)
        do throws(FillError) { try await gate.pass() } catch { return error }
        let began = ContinuousClock.now
        // Whoever waits is answered before the remote gives more: that is not the remote's time.
        var ownTime = Duration.zero
        defer { counters.remoteNanoseconds.add(.now - began - ownTime) }
        var firstByte: ContinuousClock.Instant?
        var start: Pace.Start?
        keepPace { start = $0.began(began) }
        defer { if let start { keepPace { $0.ended(start, firstByte: firstByte, now: .now) } } }
        do throws(FillError) {
            try await source.read(file.object, range: range) { bytes throws(FillError) in
                if firstByte == nil { firstByte = .now }
                keepPace { $0.arrived(bytes.count) }
                try assembler.add(bytes) { whole, content throws(FillError) in
                    let received = ContinuousClock.now
                    try file.destination.fill(whole, with: content)
                    counters.writeNanoseconds.add(.now - received)
                    granules = whole.upperBound..<end
                    counters.granulesFetched.add(whole.count)
                    counters.bytesFetched.add(content.count)
                    change(file) { $0.filled(id, whole, &$1) }
                    ownTime += .now - received
                }
            }
            if !assembler.isFinished {
                throw FillError(
                    .io, .remoteFailed,
                    "the remote sent \(assembler.received) of \(range.count) bytes at offset \(range.lowerBound)")
            }
            gate.note(nil, file.object.key, began: began)
            return nil
        } catch {
            gate.note(error, file.object.key, began: began)
            return error
        }
    }
}
