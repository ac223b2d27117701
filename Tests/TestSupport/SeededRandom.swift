import Foundation

/// SplitMix64: the same numbers for the same seed on every machine.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    package let seed: UInt64
    private var state: UInt64

    package init(seed: UInt64) { (self.seed, state) = (seed, seed) }

    /// A new seed every run, unless `PASSHSM_SEED` names one. It is printed, so that a failure can be repeated.
    package init(for test: String = #function) {
        let chosen = ProcessInfo.processInfo.environment["PASSHSM_SEED"].flatMap { UInt64($0) }
        self.init(seed: chosen ?? .random(in: 0..<1_000_000_000))
        print("\(test): PASSHSM_SEED=\(seed)")
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }

    /// A number of 0..<`end`; 0 when there is none.
    package mutating func below(_ end: Int) -> Int { Int.random(in: 0..<max(1, end), using: &self) }

    /// True `percent` times in a hundred.
    package mutating func isTrue(_ percent: Int) -> Bool { below(100) < percent }

    /// A range inside `0..<limit` of at most `most` elements; sometimes empty.
    package mutating func range(below limit: Int, most: Int) -> Range<Int> {
        let start = below(limit)
        return start..<min(limit, start + below(most + 1))
    }
}
