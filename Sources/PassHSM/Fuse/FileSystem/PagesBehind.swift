/// The kernel's pages that a sequential reader of a file has left behind. Pure.
///
/// The page cache of the lower file has the same bytes, and readers that open the file once it is complete use those.
/// The mount's own pages would only double the memory. That costs a reader of a large file more than the reads
/// themselves.
struct PagesBehind {
    /// How many of the bytes that were read last are kept: more than the kernel reads ahead of the reader.
    private static let kept = 16 << 20
    /// How far the requests of one reader may be out of order: several are under way at once.
    private static let disorder = 4 << 20

    private var start = 0
    private var end = 0

    /// Notes that the kernel reads `range`.
    ///
    /// - Returns: the range behind the reader, in whole MiB, for ``noteDropped(_:)``; nil while it is small.
    mutating func noteRead(_ range: Range<Int>) -> Range<Int>? {
        guard range.lowerBound >= end - Self.disorder, range.lowerBound - Self.disorder <= end else {
            (start, end) = (range.lowerBound, range.upperBound)
            return nil
        }
        end = max(end, range.upperBound)
        guard end - start >= 2 * Self.kept else { return nil }
        let mebibyte = 1 << 20
        return (start / mebibyte * mebibyte)..<((end - Self.kept) / mebibyte * mebibyte)
    }

    mutating func noteDropped(_ range: Range<Int>) { start = max(start, range.upperBound) }
}
