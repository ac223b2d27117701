/// When a remote tier that failed is asked again: the one policy, of fills and of imports.
package struct RetryPolicy: Sendable {
    /// How often it is asked for the same.
    package var attempts = 4
    /// How long before it is asked a second time, a quarter more or less; twice as long before each further time. A remote
    /// that names a longer time is left alone for that long.
    package var firstPause: Duration = .milliseconds(100)
    /// A remote that wants to be left alone for longer is given up at once: nobody who waits would see the end of it.
    package var maxPause: Duration = .seconds(60)

    package init() {}

    /// How long to wait before it is asked again; nil when it is not to be.
    ///
    /// - Parameter attempt: the one that failed, from 1 on.
    package func pause(after failure: FillError, attempt: Int) -> Duration? {
        // Nothing else gets better by itself.
        guard failure.reason == .remoteFailed, failure.code == .io, attempt < attempts else { return nil }
        let wanted = failure.retryAfter ?? .zero
        // Not all at once: what failed together would come together again.
        let own = firstPause * (1 << (attempt - 1)) * Double.random(in: 0.75...1.25)
        return wanted > maxPause ? nil : max(own, wanted)
    }

    /// How long to wait before a remote that was not there is asked again, by those who wait until it is back.
    package func pauseOfOutage(attempt: Int) -> Duration {
        min(firstPause * (1 << min(attempt - 1, 20)), .seconds(5)) * Double.random(in: 0.75...1.25)
    }

    /// Calls `body` until it succeeds, or is not to be called again.
    ///
    /// - Throws: what `body` threw last; `.cancelled` when the task is cancelled while it waits.
    package func retrying<Result>(_ body: () async throws(FillError) -> Result) async throws(FillError) -> Result {
        var attempt = 1
        while true {
            do throws(FillError) { return try await body() } catch {
                guard let pause = pause(after: error, attempt: attempt) else { throw error }
                do { try await Task.sleep(for: pause) } catch {
                    throw FillError(.interrupted, .cancelled, "cancelled before it was asked again")
                }
                attempt += 1
            }
        }
    }
}
