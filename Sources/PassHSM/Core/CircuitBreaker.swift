/// Decides whether the remote tier is down: a pure state machine, after the pattern of the same name.
///
/// It opens when several requests in a row found the remote unreachable (``FillError/isOutage``). The first answer
/// closes it, even one that reports an error. While it is open, only probes go to the remote.
package struct CircuitBreaker: Sendable {
    /// When the remote counts as down, and when it is probed.
    package struct Policy: Sendable {
        /// How many requests in a row have to find the remote unreachable before it counts as down.
        package var outages = 4
        /// How long the remote has to stay unreachable, counted from the start of the first of these requests. Retries
        /// bridge anything shorter.
        package var idleTimeout: Duration = .milliseconds(500)
        /// The pause between the opening and the first probe. It doubles before each further probe, up to ``maxPause``.
        package var firstPause: Duration = .milliseconds(250)
        package var maxPause: Duration = .seconds(10)
        /// How long a probe may take.
        package var probeTime: Duration = .seconds(5)

        package init() {}
    }

    /// A run of failed requests.
    package struct Outage: Hashable, Sendable {
        /// When the first of the failed requests began.
        package var since: ContinuousClock.Instant
        /// Why the last of them failed, for people.
        package var cause: String
    }

    private let policy: Policy
    private var run: Outage?
    private var count = 0
    private var probes = 0
    /// Whether the remote counts as down.
    package private(set) var isOpen = false

    package init(_ policy: Policy = .init()) { self.policy = policy }

    /// The failed requests since the last answer, even while they are too few to open the breaker. Nil when the last
    /// request was answered.
    package var outage: Outage? { run }

    /// Notes that the remote answered something.
    ///
    /// - Returns: whether it counted as down until now.
    package mutating func answered() -> Bool {
        let wasOpen = isOpen
        (run, count, probes, isOpen) = (nil, 0, 0, false)
        return wasOpen
    }

    /// Notes that a request that began at `began` found the remote unreachable.
    ///
    /// - Returns: whether the remote counts as down from this moment on. The caller then starts to probe it.
    package mutating func failed(
        _ cause: String, began: ContinuousClock.Instant, now: ContinuousClock.Instant
    ) -> Bool {
        run = Outage(since: min(run?.since ?? began, began), cause: cause)
        count += 1
        guard !isOpen, count >= policy.outages, let run, now - run.since >= policy.idleTimeout else { return false }
        isOpen = true
        return true
    }

    /// How long to wait before the next probe; nil when the breaker is closed and needs none. Each call counts as a
    /// probe.
    package mutating func nextProbe() -> Duration? {
        guard isOpen else { return nil }
        defer { probes += 1 }
        return min(policy.firstPause * (1 << min(probes, 20)), policy.maxPause)
    }
}
