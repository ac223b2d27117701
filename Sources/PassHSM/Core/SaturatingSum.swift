extension Int {
    /// The sum, or `Int.min` or `Int.max` where it would overflow: for totals of sizes that users and remotes choose.
    package func adding(saturating other: Int) -> Int {
        let (sum, isTooLarge) = addingReportingOverflow(other)
        return isTooLarge ? (other < 0 ? .min : .max) : sum
    }

    /// Adds `other`, and stops at `Int.min` or `Int.max` instead of overflowing.
    package mutating func add(saturating other: Int) { self = adding(saturating: other) }
}
