import HSMCore

extension Range<Int> {
    /// `count` bytes from `offset` on. The range ends at the last offset that a file can have: the kernel reads whole
    /// pages, and the last page of a file of 2^63 - 1 bytes would end beyond it.
    ///
    /// Negative numbers count as zero. The kernel does not send any.
    init(at offset: Int, count: Int) {
        let start = Swift.max(0, offset)
        self = start..<start.adding(saturating: Swift.max(0, count))
    }
}
