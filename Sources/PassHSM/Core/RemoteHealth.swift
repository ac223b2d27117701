import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Lets requests through to the remote tier unless it is known to be down, and finds out when it is back. Every method may
/// be called on any thread, and none blocks.
package final class RemoteHealth: Sendable {
    /// What becomes of fills while the remote is known to be down.
    package enum Offline: String, Sendable, CaseIterable {
        /// They wait until it is back, or their deadline.
        case block
        /// They fail at once.
        case error
    }

    private struct State {
        var breaker: CircuitBreaker
        var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var probing: Task<Void, Never>?
        var isStopped = false
    }

    let offline: Offline
    private let policy: CircuitBreaker.Policy
    private let source: any RemoteSource
    private let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    // A leaf lock: nothing is called while it is held.
    private let state: NIOLockedValueBox<State>

    init(_ source: any RemoteSource, _ offline: Offline, _ policy: CircuitBreaker.Policy, pool: any TaskExecutor) {
        self.source = source
        self.offline = offline
        self.policy = policy
        self.pool = pool
        state = NIOLockedValueBox(State(breaker: CircuitBreaker(policy)))
    }

    /// Since when requests have come to nothing, and why; nil while the remote answers.
    package var outage: CircuitBreaker.Outage? { state.withLockedValue { $0.breaker.outage } }

    /// The remote is known to be down.
    package var isDown: Bool { state.withLockedValue { $0.breaker.isOpen } }

    /// What a request gets that is not sent because the remote is down; nil while it is not known to be.
    var refusal: FillError? {
        state.withLockedValue { $0.breaker.isOpen ? $0.breaker.outage : nil }.map { outage in
            let seconds = (ContinuousClock.now - outage.since).components.seconds
            return FillError(
                .io, .remoteFailed, "not asked: the remote has been down for \(seconds) s: \(outage.cause)",
                isOutage: true)
        }
    }

    /// Returns when a request for content may be sent.
    ///
    /// - Throws: while the remote is down: ``refusal`` when nobody is to wait; otherwise `.cancelled` with the task.
    func waitUntilReachable() async throws(FillError) {
        guard let refusal else { return }
        if offline == .error { throw refusal }
        await awaitReturn()
        if Task.isCancelled { throw FillError(.interrupted, .cancelled, "cancelled while the remote was down") }
    }

    /// Notes what a request came to that began at `began`.
    ///
    /// - Parameter key: of the object it was for; what is probed is whether the remote answers for that.
    func note(_ failure: FillError?, _ key: RemoteKey, began: ContinuousClock.Instant) {
        switch failure?.reason {
        case nil, .remoteGone, .remoteChanged: answered()
        case .remoteFailed:
            guard let failure, failure.isOutage else { return answered() }
            let isDown = state.withLockedValue { state in
                state.breaker.failed(failure.cause, began: began, now: .now) && !state.isStopped
            }
            if isDown { startProbing(key) }
        // The machine's own faults, and what ended before it was known.
        default: return
        }
    }

    /// Nobody waits, and nothing is probed any more.
    func stop() {
        let (task, waiting) = state.withLockedValue { state in
            state.isStopped = true
            defer { state.waiting = [:] }
            return (state.probing, state.waiting.values)
        }
        task?.cancel()
        for continuation in waiting { continuation.resume() }
    }

    private func answered() {
        let waiting = state.withLockedValue { state -> [CheckedContinuation<Void, Never>] in
            guard state.breaker.outage != nil, state.breaker.answered() else { return [] }
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        for continuation in waiting { continuation.resume() }
    }

    private func awaitReturn() async {
        let id = lastID.wrappingAdd(1, ordering: .relaxed).newValue
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLockedValue { state in
                    guard state.breaker.isOpen, !state.isStopped, !Task.isCancelled else { return true }
                    state.waiting[id] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            state.withLockedValue { $0.waiting.removeValue(forKey: id) }?.resume()
        }
    }

    // MARK: Probes

    private func startProbing(_ key: RemoteKey) {
        let task = Task(executorPreference: pool) {
            while !Task.isCancelled, let pause = self.state.withLockedValue({ $0.breaker.nextProbe() }) {
                do { try await Task.sleep(for: pause) } catch { return }
                await self.probe(key)
            }
        }
        let isStopped = state.withLockedValue { state in
            state.probing = task
            return state.isStopped
        }
        if isStopped { task.cancel() }
    }

    /// Any answer will do. One that takes too long is none.
    private func probe(_ key: RemoteKey) async {
        let began = ContinuousClock.now
        let question = Task(executorPreference: pool) { () -> FillError? in
            do throws(FillError) { _ = try await self.source.current(key) } catch { return error }
            return nil
        }
        let timeout = Task(executorPreference: pool) {
            try? await Task.sleep(for: self.policy.probeTime)
            question.cancel()
        }
        let failure = await withTaskCancellationHandler {
            await question.value
        } onCancel: {
            question.cancel()
        }
        timeout.cancel()
        note(failure, key, began: began)
    }
}
