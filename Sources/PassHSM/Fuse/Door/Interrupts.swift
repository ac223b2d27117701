import Synchronization

/// INTERRUPT: the thread of a request got a signal. The request may wait already, or still be on its way to its wait.
///
/// Safe on every thread. Handlers are called without a lock.
final class Interrupts: Sendable {
    private struct State {
        var waiting: [UInt64: Waiting] = [:]
        /// Interrupts of requests that do not wait, or do not wait yet: the last ``maxEarly`` of them, as a ring.
        var early: [UInt64] = []
        var oldest = 0

        mutating func note(_ unique: UInt64) {
            // A request that waits many times must not push out the interrupts of others.
            if early.contains(unique) { return }
            if early.count < Interrupts.maxEarly { return early.append(unique) }
            early[oldest] = unique
            oldest = (oldest + 1) % Interrupts.maxEarly
        }
    }

    private struct Waiting {
        var isInterrupted: Bool
        var handler: @Sendable () -> Void
    }

    /// An interrupt is kept for the moment between the reading of a request and its wait. There are fewer threads.
    private static let maxEarly = 512

    /// A leaf lock.
    private let state = Mutex(State())

    /// Calls `handler` when the interrupt comes, or at once when it has come. Replaces an earlier handler.
    func begin(_ unique: UInt64, _ handler: @escaping @Sendable () -> Void) {
        let isInterrupted = state.withLock { state in
            let isInterrupted = state.waiting[unique]?.isInterrupted ?? state.early.contains(unique)
            state.waiting[unique] = Waiting(isInterrupted: isInterrupted, handler: handler)
            return isInterrupted
        }
        if isInterrupted { handler() }
    }

    /// Ends a wait. The request may wait again, and its interrupt comes only once.
    func end(_ unique: UInt64) {
        state.withLock { state in
            if state.waiting.removeValue(forKey: unique)?.isInterrupted == true { state.note(unique) }
        }
    }

    /// Whether the interrupt of an unanswered request has come.
    func isInterrupted(_ unique: UInt64) -> Bool {
        state.withLock { $0.waiting[unique]?.isInterrupted ?? $0.early.contains(unique) }
    }

    func interrupt(_ unique: UInt64) {
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            guard let waiting = state.waiting[unique] else {
                state.note(unique)
                return nil
            }
            state.waiting[unique]?.isInterrupted = true
            return waiting.handler
        }
        handler?()
    }
}
