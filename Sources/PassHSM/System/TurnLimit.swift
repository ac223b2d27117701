import Synchronization

/// Lets a limited number of tasks do something at once. Other tasks wait for their turn in order, without holding a
/// thread. Every method may be called on any thread.
package final class TurnLimit: Sendable {
    private struct State {
        var free: Int
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state: Mutex<State>

    package init(_ limit: Int) { state = Mutex(State(free: limit)) }

    /// Waits for a place, and holds it until ``leave()``. A cancelled task waits too.
    package func enter() async {
        await withCheckedContinuation { continuation in
            let enters = state.withLock { state in
                if state.free == 0 { state.waiting.append(continuation) } else { state.free -= 1 }
                return state.waiting.isEmpty
            }
            if enters { continuation.resume() }
        }
    }

    /// Gives the place to the next task that waits.
    package func leave() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            if !state.waiting.isEmpty { return state.waiting.removeFirst() }
            state.free += 1
            return nil
        }
        next?.resume()
    }
}
