/// How far to read ahead so that the line to the remote is full: twice what it carries within one delay; and how much to ask
/// for at once. Pure.
///
/// Bandwidth is the best rate at which bytes came while a fetch was under way, delay the least time to a first byte, both
/// of the last seconds (as BBR has it). A window that is too small shows as a bandwidth of one window a delay, so that it
/// doubles until the line is full; what a slow line cannot carry is not asked for.
///
/// A near remote is worth larger fetches: those that are under way share the line, so that of many small ones the first is
/// there no sooner than the last, and each costs its switches between threads. A distant one gets the small ones, as a store
/// may bound what a connection carries.
struct BandwidthEstimator: Sendable {
    /// What a fetch begins with, for ``ended(_:firstByte:now:)``.
    struct Start: Sendable {
        fileprivate let time: ContinuousClock.Instant
        /// Of all fetches together.
        fileprivate let delivered: Int
    }

    /// The best sample of the present period and of the one before.
    private struct Best: Sendable {
        var now: Double?
        var before: Double?

        mutating func add(_ value: Double, _ better: (Double, Double) -> Double) {
            now = now.map { better($0, value) } ?? value
        }

        mutating func turn() {
            before = now
            now = nil
        }

        func value(_ better: (Double, Double) -> Double) -> Double? {
            guard let now, let before else { return now ?? before }
            return better(now, before)
        }
    }

    private static let period = Duration.seconds(5)
    /// Rates of shorter times are chance.
    private static let shortest = Duration.milliseconds(1)
    /// Remotes that send a first byte sooner are near.
    private static let near = 0.005
    /// Of a near remote a fetch is as large as what comes in so many seconds, and the window eight of them.
    private static let fetchTime = 0.02
    private let minWindow: Int
    private let maxWindow: Int
    private let fetchSizes: ClosedRange<Int>
    private var delivered = 0
    /// Bytes a second.
    private var rate = Best()
    /// Seconds.
    private var delay = Best()
    private var periodEnd: ContinuousClock.Instant?

    /// - Parameters:
    ///   - minWindow: bytes of the window, whatever the line is.
    ///   - maxWindow: bytes that it never grows beyond.
    ///   - fetchSizes: bytes of one fetch, of any remote and of a near one.
    init(minWindow: Int, maxWindow: Int, fetchSizes: ClosedRange<Int> = 1...1) {
        self.minWindow = minWindow
        self.maxWindow = max(minWindow, maxWindow)
        self.fetchSizes = fetchSizes
    }

    /// Bytes.
    var window: Int {
        guard let rate = rate.value(max), let delay = delay.value(min) else { return minWindow }
        return min(
            maxWindow,
            max(minWindow, Int(min(2 * rate * delay, 1e15)), fetchSize > fetchSizes.lowerBound ? 8 * fetchSize : 0))
    }

    /// Bytes of one fetch, a multiple of the least.
    var fetchSize: Int {
        let least = fetchSizes.lowerBound
        guard let rate = rate.value(max), let delay = delay.value(min), delay < Self.near else { return least }
        return min(fetchSizes.upperBound, max(1, Int(min(rate * Self.fetchTime, 1e15)) / least) * least)
    }

    func began(_ now: ContinuousClock.Instant) -> Start { Start(time: now, delivered: delivered) }

    mutating func arrived(_ bytes: Int) { delivered += bytes }

    /// - Parameter firstByte: when the first came; nil when none did, which says nothing.
    mutating func ended(_ start: Start, firstByte: ContinuousClock.Instant?, now: ContinuousClock.Instant) {
        guard let firstByte else { return }
        let end = periodEnd ?? now
        // After a pause of a whole period nothing of before counts.
        for _ in 0..<(now < end ? 0 : now < end + Self.period ? 1 : 2) {
            rate.turn()
            delay.turn()
            periodEnd = now + Self.period
        }
        delay.add((firstByte - start.time) / .seconds(1), min)
        let time = now - start.time
        if time >= Self.shortest { rate.add(Double(delivered - start.delivered) / (time / .seconds(1)), max) }
    }
}
