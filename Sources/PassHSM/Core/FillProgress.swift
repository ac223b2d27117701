import Synchronization

/// When content of each part of a file last arrived. Fetches write it where content arrives; deadlines read it without
/// the file's lock.
///
/// A file has at most 64 parts. In a large file, arrivals near a request's range therefore count as progress of the
/// request.
final class FillProgress: Sendable {
    private final class Part: Sendable {
        /// Nanoseconds; see ``FillEngine/time(_:)``.
        let last = Atomic<Int>(0)
    }

    private static let maxParts = 64
    private let parts: [Part]
    private let granulesPerPart: Int
    /// Whether all content has arrived and is being checked as a whole.
    let isChecking = Atomic<Bool>(false)

    init(granules: Int) {
        granulesPerPart = max(1, (granules + Self.maxParts - 1) / Self.maxParts)
        parts = (0..<(granules + granulesPerPart - 1) / granulesPerPart).map { _ in Part() }
    }

    private func parts(of granules: Range<Int>) -> ArraySlice<Part> {
        guard !granules.isEmpty else { return [] }
        let first = granules.lowerBound / granulesPerPart
        return parts[min(first, parts.count)..<min((granules.upperBound - 1) / granulesPerPart + 1, parts.count)]
    }

    func arrived(_ granules: Range<Int>, at time: Int) {
        for part in parts(of: granules) { part.last.store(time, ordering: .relaxed) }
    }

    /// When content of the parts that hold `granules` last arrived; 0 for never.
    func last(of granules: Range<Int>) -> Int {
        parts(of: granules).reduce(0) { max($0, $1.last.load(ordering: .relaxed)) }
    }
}
