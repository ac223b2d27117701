/// Whether the remote tier is known to be down: a pure state machine.
///
/// It opens when several requests in a row found nobody at work (``FillError/isOutage``), and closes with the first answer,
/// whatever that says. While it is open, probes alone go to the remote.
package struct CircuitBreaker: Sendable {
    package struct Policy: Sendable {
        /// Requests in a row that have to come to nothing before the remote is known to be down.
        package var outages = 4
        /// How long there has to be no answer, from the beginning of the first of them: a blip is the retries' to bridge.
        package var idleTimeout: Duration = .milliseconds(500)
        /// How long after the opening the remote is probed; twice as long before each further probe.
        package var firstPause: Duration = .milliseconds(250)
        package var maxPause: Duration = .seconds(10)
        /// How long a probe may take.
        package var probeTime: Duration = .seconds(5)

        package init() {}
    }

    package struct Outage: Hashable, Sendable {
        /// When the first request began that came to nothing.
        package var since: ContinuousClock.Instant
        /// Why the last one did.
        package var cause: String
    }

    private let policy: Policy
    private var run: Outage?
    private var count = 0
    private var probes = 0
    /// The remote is known to be down.
    package private(set) var isOpen = false

    package init(_ policy: Policy = .init()) { self.policy = policy }

    /// What is known of the outage, from its first request on; nil after an answer.
    package var outage: Outage? { run }

    /// The remote answered something. True: it was down.
    package mutating func answered() -> Bool {
        let wasOpen = isOpen
        (run, count, probes, isOpen) = (nil, 0, 0, false)
        return wasOpen
    }

    /// A request that began at `began` found nobody at work. True: the remote is known to be down from now on, and has to
    /// be probed.
    package mutating func failed(
        _ cause: String, began: ContinuousClock.Instant, now: ContinuousClock.Instant
    ) -> Bool {
        run = Outage(since: min(run?.since ?? began, began), cause: cause)
        count += 1
        guard !isOpen, count >= policy.outages, let run, now - run.since >= policy.idleTimeout else { return false }
        isOpen = true
        return true
    }

    /// How long to wait before the next probe; nil when there is nothing to probe.
    package mutating func nextProbe() -> Duration? {
        guard isOpen else { return nil }
        defer { probes += 1 }
        return min(policy.firstPause * (1 << min(probes, 20)), policy.maxPause)
    }
}
