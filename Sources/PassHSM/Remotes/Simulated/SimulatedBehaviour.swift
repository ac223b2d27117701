/// The behaviour of a ``SimulatedSource``.
package struct SimulatedBehaviour: Hashable, Sendable {
    /// How long each read waits before its first byte arrives.
    package var latency = Duration.zero
    /// Bytes per second for all reads together; nil for no limit.
    package var bandwidth: Int?
    /// While this path exists, reads that have not begun wait.
    package var hold: String?
    /// While this path exists, every read fails.
    package var fail: String?
    /// While this path exists, reads end early, without an error.
    package var short: String?
    /// While this path exists, reads deliver one byte too many.
    package var long: String?
    /// While this path exists, reads deliver other bytes.
    package var garbage: String?

    /// The behaviour applies only to objects whose keys begin with this text; nil for all objects.
    package var only: String?

    package init() {}

    /// Parses text such as `latency=20ms,bandwidth=100M,hold=/tmp/x,fail=/tmp/y`. Each part may be left out. `short`,
    /// `long` and `garbage` take paths as well. `only=slow/` limits the behaviour to objects whose keys begin with
    /// `slow/`.
    ///
    /// A latency is a number with `us`, `ms` or `s`. A bandwidth is in bytes per second, with K, M or G for powers of
    /// 1024. Paths must not contain commas.
    package init(_ text: String) throws(LocationError) {
        for part in text.split(separator: ",", omittingEmptySubsequences: true) {
            let pair = part.split(separator: "=", maxSplits: 1).map(String.init)
            guard pair.count == 2 else {
                throw LocationError("simulated remote: “\(part)” is not of the form name=value")
            }
            switch pair[0] {
            case "latency": latency = try Self.duration(pair[1])
            case "bandwidth": bandwidth = try Self.rate(pair[1])
            case "hold": hold = pair[1]
            case "fail": fail = pair[1]
            case "short": short = pair[1]
            case "long": long = pair[1]
            case "garbage": garbage = pair[1]
            case "only": only = pair[1]
            default:
                throw LocationError(
                    "simulated remote: “\(pair[0])” is none of latency, bandwidth, hold, fail, short, long, garbage and only"
                )
            }
        }
    }

    private static func duration(_ text: String) throws(LocationError) -> Duration {
        for (unit, seconds) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)] where text.hasSuffix(unit) {
            guard let number = number(text.dropLast(unit.count)), number * seconds < 1e6 else { break }
            return .nanoseconds(Int64(number * seconds * 1e9))
        }
        throw LocationError("simulated remote: the latency “\(text)” is not a number with us, ms or s")
    }

    private static func rate(_ text: String) throws(LocationError) -> Int {
        var factor = 1.0
        var digits = Substring(text)
        for (unit, value) in [("K", 1024.0), ("M", 1_048_576), ("G", 1_073_741_824)] where text.hasSuffix(unit) {
            (factor, digits) = (value, text.dropLast())
        }
        guard let number = number(digits), number * factor >= 1, number * factor < 1e15 else {
            throw LocationError("simulated remote: the bandwidth “\(text)” is not bytes a second, such as 500K or 100M")
        }
        return Int(number * factor)
    }

    /// Parses digits with at most one point. Signs, `nan` and exponents are refused.
    private static func number(_ text: Substring) -> Double? {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x2e } ? Double(text) : nil
    }
}
