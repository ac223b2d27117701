import HSMSystem

/// Runs `body` on a thread that may block, while the calling thread waits for it: the way from a command, which is not
/// asynchronous, to a remote tier, which is. Must never be called on Swift's cooperative pool.
func waitFor<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) throws -> Value {
    try BlockingPool(name: "import", limit: 1).wait { () async -> Result<Value, any Error> in
        do { return .success(try await body()) } catch { return .failure(error) }
    }.get()
}
