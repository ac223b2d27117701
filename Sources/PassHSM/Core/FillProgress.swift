import Synchronization

/// When something of each part of a file has come last: written where content arrives, and read without the file's lock by
/// those who watch deadlines.
///
/// A file has 64 parts at most. So of a large one a request may be taken to progress because of what is near to it.
final class FillProgress: Sendable {
    private final class Part: Sendable {
        /// Nanoseconds; see ``FillEngine/time(_:)``.
        let last = Atomic<Int>(0)
    }

    private static let maxParts = 64
    private let parts: [Part]
    private let granulesPerPart: Int
    /// Everything has come, and is being looked at as a whole.
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

    /// When something of `granules` has come last; 0: never.
    func last(of granules: Range<Int>) -> Int {
        parts(of: granules).reduce(0) { max($0, $1.last.load(ordering: .relaxed)) }
    }
}
