extension Int {
    /// The sum, or the nearest number that there is: for totals of sizes that users and remotes choose.
    package func adding(saturating other: Int) -> Int {
        let (sum, isTooLarge) = addingReportingOverflow(other)
        return isTooLarge ? (other < 0 ? .min : .max) : sum
    }

    /// Adds so that the sum stops at the nearest number that there is.
    package mutating func add(saturating other: Int) { self = adding(saturating: other) }
}
