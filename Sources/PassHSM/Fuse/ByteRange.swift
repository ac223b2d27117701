import HSMCore

extension Range<Int> {
    /// `count` bytes from `offset` on, up to the last offset that a file can have: the kernel reads whole pages, and the last
    /// page of a file of 2^63 - 1 bytes ends behind it.
    ///
    /// Numbers below zero, which the kernel does not send, count as zero.
    init(at offset: Int, count: Int) {
        let start = Swift.max(0, offset)
        self = start..<start.adding(saturating: Swift.max(0, count))
    }
}
