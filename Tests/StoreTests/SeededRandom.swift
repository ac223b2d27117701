import Foundation

/// SplitMix64: the same numbers for the same seed on every machine.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    /// A new seed every run, unless `PASSHSM_SEED` names one; printed, so that a failure can be repeated.
    init(for test: String = #function) {
        let chosen = ProcessInfo.processInfo.environment["PASSHSM_SEED"].flatMap { UInt64($0) }
        state = chosen ?? .random(in: 0..<1_000_000_000)
        print("\(test): PASSHSM_SEED=\(state)")
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var bits = state
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        return bits ^ (bits >> 31)
    }

    mutating func below(_ limit: Int) -> Int { limit <= 0 ? 0 : Int.random(in: 0..<limit, using: &self) }
}
