import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Tracks whether the remote tier is down, holds requests back while it is, and probes it until it answers again. Every
/// method may be called on any thread, and none blocks.
package final class RemoteHealth: Sendable {
    /// How fills behave while the remote is down.
    package enum Offline: String, Sendable, CaseIterable {
        /// They wait until the remote is back, or until their deadline.
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
    private let source: any RemoteStore
    private let pool: any TaskExecutor
    private let lastID = Atomic<UInt64>(0)
    // A leaf lock: nothing is called while it is held.
    private let state: NIOLockedValueBox<State>

    init(_ source: any RemoteStore, _ offline: Offline, _ policy: CircuitBreaker.Policy, pool: any TaskExecutor) {
        self.source = source
        self.offline = offline
        self.policy = policy
        self.pool = pool
        state = NIOLockedValueBox(State(breaker: CircuitBreaker(policy)))
    }

    /// The failed requests since the remote's last answer: since when, and why. Nil while the remote answers.
    package var outage: CircuitBreaker.Outage? { state.withLockedValue { $0.breaker.outage } }

    /// Whether the remote counts as down.
    package var isDown: Bool { state.withLockedValue { $0.breaker.isOpen } }

    /// The error for requests that are not sent because the remote is down; nil while it is not.
    var refusal: FillError? {
        state.withLockedValue { $0.breaker.isOpen ? $0.breaker.outage : nil }.map { outage in
            let seconds = (ContinuousClock.now - outage.since).components.seconds
            return FillError(
                .io, .remoteFailed, "the remote has been down for \(seconds) s, and was not asked: \(outage.cause)",
                isOutage: true)
        }
    }

    /// Returns when a request for content may be sent: at once, or after the remote is back.
    ///
    /// - Throws: ``refusal`` while the remote is down, with ``Offline/error``; `.cancelled` when the task is cancelled.
    func waitUntilReachable() async throws(FillError) {
        guard let refusal else { return }
        if offline == .error { throw refusal }
        await awaitReturn()
        if Task.isCancelled { throw FillError(.interrupted, .cancelled, "cancelled while the remote was down") }
    }

    /// Notes the result of a request that began at `began`.
    ///
    /// - Parameters:
    ///   - failure: nil when the request succeeded.
    ///   - key: the object that was asked for. Probes ask for it too.
    func note(_ failure: FillError?, _ key: RemoteKey, began: ContinuousClock.Instant) {
        switch failure?.reason {
        case nil, .remoteGone, .remoteChanged: answered()
        case .remoteFailed:
            guard let failure, failure.isOutage else { return answered() }
            let isDown = state.withLockedValue { state in
                state.breaker.failed(failure.cause, began: began, now: .now) && !state.isStopped
            }
            if isDown { startProbing(key) }
        // Local failures, and requests that ended before the remote could answer, tell nothing about the remote.
        default: return
        }
    }

    /// Ends all waits and probes. Later calls of ``waitUntilReachable()`` do not wait either.
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

    /// Any answer proves that the remote is back. A probe that takes too long counts as unanswered.
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
