/// What a reader that goes through a file has left behind of the kernel's pages. Pure.
///
/// The bytes are in the page cache of the lower file as well, and whoever opens the file once it is complete reads those: the
/// mount's own pages would only take twice the memory, which costs a reader of a large file more than the reads themselves.
struct PagesBehind {
    /// So much of what was read last is kept: more than the kernel reads ahead of the reader.
    private static let kept = 16 << 20
    /// Requests of one reader come in about this order: several are under way at once.
    private static let disorder = 4 << 20

    private var start = 0
    private var end = 0

    /// Notes that the kernel reads `range`.
    ///
    /// - Returns: what is behind the reader, in whole MiB, for ``noteDropped(_:)``; nil while that is little.
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
