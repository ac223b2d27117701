import Glibc

extension BlockingPool {
    /// Runs `body` as a task on the pool and blocks the calling thread until it ends. This leads from a thread that may
    /// block to asynchronous work. Never call it on Swift's cooperative pool, nor on this pool when it is small.
    ///
    /// - Parameter goesOn: called about five times a second. False cancels the task, and the call still waits for the
    ///   task's end.
    package func wait<Result: Sendable>(
        while goesOn: () -> Bool = { true }, for body: @escaping @Sendable () async -> Result
    ) -> Result {
        let outcome = Outcome<Result>()
        let task = Task(executorPreference: self) { outcome.finish(await body()) }
        while true {
            if let result = outcome.result(seconds: 0.2) { return result }
            if !goesOn() { task.cancel() }
        }
    }
}

/// A value that one thread delivers and another waits for. Every method may be called on any thread.
package final class Outcome<Value: Sendable>: Sendable {
    private let condition = Condition()
    // Guarded by the condition's lock.
    private nonisolated(unsafe) var value: Value?

    package init() {}

    /// Delivers the value, and wakes the waiting threads.
    package func finish(_ value: Value) {
        condition.lock()
        self.value = value
        condition.unlock()
        condition.broadcast()
    }

    /// Waits for the value; nil when it has not arrived within `seconds`.
    package func result(seconds: Double) -> Value? {
        condition.lock()
        defer { condition.unlock() }
        if value == nil { _ = condition.wait(seconds: seconds) }
        return value
    }
}
