/// When a failed request to the remote tier is tried again. Fills and imports share this policy.
package struct RetryPolicy: Sendable {
    /// How many times a request is tried altogether.
    package var attempts = 4
    /// The pause before the second attempt, varied at random by a quarter. It doubles before each further attempt. A
    /// longer pause that the remote asks for is kept.
    package var firstPause: Duration = .milliseconds(100)
    /// When the remote asks for a longer pause than this, the request fails at once: no waiter would see
    /// the end of the pause.
    package var maxPause: Duration = .seconds(60)

    package init() {}

    /// How long to wait before the next attempt; nil when there is none.
    ///
    /// - Parameter attempt: the number of the attempt that failed, from 1 on.
    package func pause(after failure: FillError, attempt: Int) -> Duration? {
        // Other failures do not go away by themselves.
        guard failure.reason == .remoteFailed, failure.code == .io, attempt < attempts else { return nil }
        let wanted = failure.retryAfter ?? .zero
        // Random, so that requests that failed together do not return together.
        let own = firstPause * (1 << (attempt - 1)) * Double.random(in: 0.75...1.25)
        return wanted > maxPause ? nil : max(own, wanted)
    }

    /// How long a request that waits for the end of an outage pauses before it is tried again.
    package func pauseOfOutage(attempt: Int) -> Duration {
        min(firstPause * (1 << min(attempt - 1, 20)), .seconds(5)) * Double.random(in: 0.75...1.25)
    }

    /// Calls `body` until it succeeds, or until no attempt is left.
    ///
    /// - Throws: the last error of `body`; `.cancelled` when the task is cancelled during a pause.
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
