/// Estimates how far to read ahead to keep the connection to the remote busy, and how much one fetch should ask for.
/// Pure.
///
/// The window is twice the bandwidth-delay product. Bandwidth is the best rate at which bytes arrived while a fetch was
/// under way, and delay is the shortest time to a first byte, both over the last seconds (as in BBR). A window that is
/// too small shows as a bandwidth of one window per delay, so it doubles until the connection is busy. A slow
/// connection never gets a window that it cannot carry.
///
/// A near and fast remote gets larger fetches. Fetches that run at once share the connection, so many small ones all
/// finish late, and each costs switches between threads. A distant remote gets small fetches, because a store may limit
/// the bandwidth of one connection.
struct BandwidthEstimator: Sendable {
    /// The state at the start of a fetch, to be passed to ``ended(_:firstByte:now:)``.
    struct Start: Sendable {
        fileprivate let time: ContinuousClock.Instant
        /// Bytes that all fetches together had received.
        fileprivate let delivered: Int
    }

    /// The best sample of the current period and of the one before.
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
    /// Rates over shorter times are left out, as chance rules them.
    private static let shortest = Duration.milliseconds(1)
    /// A remote with a shorter delay, in seconds, is near.
    private static let near = 0.005
    /// For a near remote, a fetch asks for what arrives in so many seconds, and the window is eight fetches.
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
    ///   - minWindow: the smallest window, in bytes.
    ///   - maxWindow: the largest window, in bytes.
    ///   - fetchSizes: bytes of one fetch: the lower bound for any remote, up to the upper bound for a near one.
    init(minWindow: Int, maxWindow: Int, fetchSizes: ClosedRange<Int> = 1...1) {
        self.minWindow = minWindow
        self.maxWindow = max(minWindow, maxWindow)
        self.fetchSizes = fetchSizes
    }

    /// How far to read ahead, in bytes.
    var window: Int {
        guard let rate = rate.value(max), let delay = delay.value(min) else { return minWindow }
        return min(
            maxWindow,
            max(minWindow, Int(min(2 * rate * delay, 1e15)), fetchSize > fetchSizes.lowerBound ? 8 * fetchSize : 0))
    }

    /// How much one fetch should ask for, in bytes: a multiple of the smallest size.
    var fetchSize: Int {
        let least = fetchSizes.lowerBound
        guard let rate = rate.value(max), let delay = delay.value(min), delay < Self.near else { return least }
        return min(fetchSizes.upperBound, max(1, Int(min(rate * Self.fetchTime, 1e15)) / least) * least)
    }

    func began(_ now: ContinuousClock.Instant) -> Start { Start(time: now, delivered: delivered) }

    mutating func arrived(_ bytes: Int) { delivered += bytes }

    /// Notes the end of a fetch.
    ///
    /// - Parameter firstByte: when its first byte arrived. A fetch without one (nil) tells nothing, and is ignored.
    mutating func ended(_ start: Start, firstByte: ContinuousClock.Instant?, now: ContinuousClock.Instant) {
        guard let firstByte else { return }
        let end = periodEnd ?? now
        // After a pause of a whole period, older samples no longer count.
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
