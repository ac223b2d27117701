import Glibc

/// Something did not come to pass in time.
package struct TimedOut: Error, CustomStringConvertible {
    package let description: String
}

/// Polls on this thread until `condition` holds.
///
/// - Throws: ``TimedOut``, or what `condition` throws.
package func until(_ what: String, seconds: Double = 60, _ condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + .seconds(seconds)
    while try !condition() {
        if ContinuousClock.now > end { throw TimedOut(description: "not within \(seconds) s: \(what)") }
        usleep(1000)
    }
}

/// The same for a task, which sleeps meanwhile.
package func until(_ what: String, seconds: Double = 60, _ condition: () throws -> Bool) async throws {
    let end = ContinuousClock.now + .seconds(seconds)
    while try !condition() {
        if ContinuousClock.now > end { throw TimedOut(description: "not within \(seconds) s: \(what)") }
        try await Task.sleep(for: .milliseconds(1))
    }
}
