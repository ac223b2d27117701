/// The kernel's pages that sequential readers of a file have left behind. Pure.
///
/// The page cache of the lower file has the same bytes, and readers that open the file once it is complete use those.
/// The mount's own pages would only double the memory. That costs a reader of a large file more than the reads
/// themselves.
struct PagesBehind {
    /// How many of the bytes that were read last are kept: more than the kernel reads ahead of the reader.
    private static let kept = 16 << 20
    /// How far the requests of one reader may be out of order: several are under way at once.
    private static let disorder = 4 << 20
    /// A handle may have several readers at once, for example a mapping whose dropped pages are read again.
    private static let maxRuns = 8

    /// Pages that were read, with gaps of at most ``disorder``, and not dropped yet.
    private struct Run {
        var start: Int
        var end: Int

        func isNear(_ range: Range<Int>) -> Bool {
            range.lowerBound >= start && range.lowerBound - PagesBehind.disorder <= end
        }
    }

    /// The run that was extended last is the last.
    private var runs: [Run] = []

    /// Notes that the kernel reads `range`.
    ///
    /// - Returns: the range behind the reader, in whole MiB, for ``noteDropped(_:)``; nil while it is small.
    mutating func noteRead(_ range: Range<Int>) -> Range<Int>? {
        var run = Run(start: range.lowerBound, end: range.upperBound)
        // The range may close the gap between two runs.
        runs.removeAll { other in
            let isNear = other.isNear(range) || run.isNear(other.start..<other.end)
            if isNear { run = Run(start: min(run.start, other.start), end: max(run.end, other.end)) }
            return isNear
        }
        if runs.count == Self.maxRuns { runs.removeFirst() }
        runs.append(run)
        guard run.end - run.start >= 2 * Self.kept else { return nil }
        let mebibyte = 1 << 20
        return (run.start / mebibyte * mebibyte)..<((run.end - Self.kept) / mebibyte * mebibyte)
    }

    mutating func noteDropped(_ range: Range<Int>) {
        for index in runs.indices where range.contains(runs[index].start) { runs[index].start = range.upperBound }
        runs.removeAll { $0.start >= $0.end }
    }
}
