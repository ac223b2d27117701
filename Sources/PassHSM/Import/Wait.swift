import HSMSystem

/// Runs `body` on a thread that may block, while the calling thread waits for it: the way from a command, which is not
/// asynchronous, to a remote tier, which is. Never to be called on Swift's cooperative pool.
func waitFor<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) throws -> Result {
    let outcome = Outcome<Result>()
    Task(executorPreference: BlockingPool(name: "import", limit: 1)) {
        let result: Swift.Result<Result, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        outcome.condition.lock()
        outcome.result = result
        outcome.condition.unlock()
        outcome.condition.signal()
    }
    outcome.condition.lock()
    defer { outcome.condition.unlock() }
    while true {
        if let result = outcome.result { return try result.get() }
        outcome.condition.wait()
    }
}

private final class Outcome<Value: Sendable>: @unchecked Sendable {
    // Sendable: `result` is guarded by the condition's lock.
    var result: Result<Value, any Error>?
    let condition = Condition()
}
