import Glibc

extension BlockingPool {
    /// Runs `body` as a task on the pool, while the calling thread waits for it: the way from a thread that may block to
    /// asynchronous work. Never to be called on Swift's cooperative pool, nor on this one when it is small.
    ///
    /// - Parameter goesOn: asked about five times a second; false cancels the task, whose end is still waited for.
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

/// What one thread waits for and another brings.
package final class Outcome<Value: Sendable>: Sendable {
    private let condition = Condition()
    // Guarded by the condition's lock.
    private nonisolated(unsafe) var value: Value?

    package init() {}

    package func finish(_ value: Value) {
        condition.lock()
        self.value = value
        condition.unlock()
        condition.broadcast()
    }

    /// Nil when it has not come within `seconds`.
    package func result(seconds: Double) -> Value? {
        condition.lock()
        defer { condition.unlock() }
        if value == nil { _ = condition.wait(seconds: seconds) }
        return value
    }
}
