import Testing

@testable import HSMCore

@Suite struct BandwidthEstimatorTests {
    private static let minWindow = 8 << 20
    private static let maxWindow = 64 << 20
    private let epoch = ContinuousClock.now

    /// A reader that always has a window under way, over a line of so many bytes a second.
    ///
    /// - Returns: the windows, one after each delay.
    private func run(
        _ estimator: inout BandwidthEstimator, delay: Double, bandwidth: Double, from begin: Double = 0, rounds: Int
    ) -> [Int] {
        var time = begin
        return (0..<rounds).map { _ in
            let window = estimator.window
            let start = estimator.began(at(time))
            // What the line does not carry within the delay takes longer.
            let end = time + max(delay, Double(window) / bandwidth) + 0.0005
            estimator.arrived(window)
            estimator.ended(start, firstByte: at(time + delay), now: at(end))
            time = end
            return estimator.window
        }
    }

    private func at(_ seconds: Double) -> ContinuousClock.Instant { epoch + .seconds(seconds) }

    @Test func `over a long and broad line the window doubles until it is at its most`() {
        var estimator = BandwidthEstimator(minWindow: Self.minWindow, maxWindow: Self.maxWindow)
        #expect(estimator.window == Self.minWindow)
        let windows = run(&estimator, delay: 0.1, bandwidth: 1e12, rounds: 6)
        #expect(zip(windows, windows.dropFirst()).allSatisfy { $1 >= $0 && $1 <= $0 * 2 + 1 })
        #expect(windows[1] > 3 * Self.minWindow && windows[5] == Self.maxWindow)
    }

    @Test func `it is twice what the line carries within its delay`() {
        var estimator = BandwidthEstimator(minWindow: 1 << 20, maxWindow: Self.maxWindow)
        let windows = run(&estimator, delay: 0.1, bandwidth: 1e8, rounds: 20)
        #expect((17_000_000...20_000_000).contains(windows[19]), "\(windows)")
    }

    @Test func `a near or a slow remote leaves it at its least`() {
        for (delay, bandwidth) in [(0.0003, 1e9), (0.05, 1e7)] {
            var estimator = BandwidthEstimator(minWindow: Self.minWindow, maxWindow: Self.maxWindow)
            #expect(run(&estimator, delay: delay, bandwidth: bandwidth, rounds: 20).allSatisfy { $0 == Self.minWindow })
        }
    }

    @Test func `of a near and fast remote fetches and window are larger, of a distant or slow one they are not`() {
        for (delay, bandwidth, size, window) in [
            (0.0005, 2e9, 4 << 20, 32 << 20), (0.0005, 1.2e8, 2 << 20, 16 << 20),
            (0.0005, 4e7, 1 << 20, Self.minWindow),
            (0.05, 2e9, 1 << 20, Self.maxWindow),
        ] {
            var estimator = BandwidthEstimator(
                minWindow: Self.minWindow, maxWindow: Self.maxWindow, fetchSizes: (1 << 20)...(4 << 20))
            #expect(estimator.fetchSize == 1 << 20)
            _ = run(&estimator, delay: delay, bandwidth: bandwidth, rounds: 20)
            #expect(estimator.fetchSize == size && estimator.window == window, "\(delay) \(bandwidth)")
        }
    }

    @Test func `it follows a line that becomes slower, or nearer, within some seconds`() {
        for (delay, bandwidth) in [(0.1, 1e7), (0.001, 1e9)] {
            var estimator = BandwidthEstimator(minWindow: Self.minWindow, maxWindow: Self.maxWindow)
            _ = run(&estimator, delay: 0.1, bandwidth: 1e12, rounds: 10)
            #expect(estimator.window == Self.maxWindow)
            _ = run(&estimator, delay: delay, bandwidth: bandwidth, from: 6, rounds: 20)
            _ = run(&estimator, delay: delay, bandwidth: bandwidth, from: 240, rounds: 20)
            #expect(estimator.window == Self.minWindow)
        }
    }

    @Test func `fetches that bring nothing, and single small ones, say nothing about bandwidth`() {
        var estimator = BandwidthEstimator(minWindow: Self.minWindow, maxWindow: Self.maxWindow)
        _ = run(&estimator, delay: 0.1, bandwidth: 1e12, rounds: 10)
        for index in 0..<100 {
            let start = estimator.began(at(3 + Double(index) * 0.01))
            if index % 2 == 0 { estimator.arrived(65536) }
            estimator.ended(start, firstByte: index % 2 == 0 ? at(3.1 + Double(index) * 0.01) : nil, now: at(3.2))
        }
        #expect(estimator.window == Self.maxWindow)
    }
}
