/// A set of granule numbers: a bitmap in pages, so that a huge sparse file costs what is in it, not what it spans.
///
/// A value type; every operation is linear in the pages it touches.
package struct GranuleSet: Sendable, Equatable {
    /// 4,096 bits. A page that is empty is not kept.
    private struct Page: Sendable, Equatable {
        var words = [UInt64](repeating: 0, count: GranuleSet.wordsPerPage)
        var count = 0
    }

    private static let wordsPerPage = 64
    private static let pageBits = 4096

    private var pages: [Int: Page] = [:]
    package private(set) var count = 0

    package init() {}

    package init(_ granules: Range<Int>) { insert(granules) }

    package var isEmpty: Bool { count == 0 }

    package func contains(_ granule: Int) -> Bool {
        guard let page = pages[granule / Self.pageBits] else { return false }
        let bit = granule % Self.pageBits
        return page.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    package func contains(_ granules: Range<Int>) -> Bool {
        granules.isEmpty || firstGap(in: granules) == nil
    }

    package mutating func insert(_ granules: Range<Int>) { update(granules, insert: true) }

    package mutating func remove(_ granules: Range<Int>) { update(granules, insert: false) }

    private mutating func update(_ granules: Range<Int>, insert: Bool) {
        if !insert {
            // Removal may span far more pages than exist ("everything from here on").
            for number in pages.keys where granules.overlaps(number * Self.pageBits..<(number + 1) * Self.pageBits) {
                update(page: number, granules, insert: false)
            }
            return
        }
        guard !granules.isEmpty else { return }
        for number in granules.lowerBound / Self.pageBits...(granules.upperBound - 1) / Self.pageBits {
            update(page: number, granules, insert: true)
        }
    }

    private mutating func update(page number: Int, _ granules: Range<Int>, insert: Bool) {
        let base = number * Self.pageBits
        let bits = granules.clamped(to: base..<base + Self.pageBits)
        var page = pages.removeValue(forKey: number) ?? Page()
        var bit = bits.lowerBound - base
        let end = bits.upperBound - base
        while bit < end {
            let word = bit / 64
            let width = min(64 - bit % 64, end - bit)
            let mask: UInt64 = (~0 >> UInt64(64 - width)) << UInt64(bit % 64)
            let before = page.words[word].nonzeroBitCount
            if insert { page.words[word] |= mask } else { page.words[word] &= ~mask }
            page.count += page.words[word].nonzeroBitCount - before
            count += page.words[word].nonzeroBitCount - before
            bit += width
        }
        if page.count > 0 { pages[number] = page }
    }

    /// The first run of granules in `range` that are not in the set, at most up to the end of `range`.
    package func firstGap(in range: Range<Int>) -> Range<Int>? {
        guard let start = next(from: range.lowerBound, to: range.upperBound, member: false) else { return nil }
        return start..<(next(from: start, to: range.upperBound, member: true) ?? range.upperBound)
    }

    /// The first run of granules in `range` that are in the set.
    package func firstRun(in range: Range<Int>) -> Range<Int>? {
        guard let start = next(from: range.lowerBound, to: range.upperBound, member: true) else { return nil }
        return start..<(next(from: start, to: range.upperBound, member: false) ?? range.upperBound)
    }

    /// The first number in `start..<end` whose membership is `member`.
    private func next(from start: Int, to end: Int, member: Bool) -> Int? {
        var position = start
        while position < end {
            let number = position / Self.pageBits
            guard let page = pages[number] else {
                if !member { return position }
                // No page before the next existing one can have members.
                guard let following = pages.keys.filter({ $0 > number }).min() else { return nil }
                position = following * Self.pageBits
                continue
            }
            if page.count == Self.pageBits && !member {
                position = (number + 1) * Self.pageBits
                continue
            }
            let bit = position % Self.pageBits
            let word = (member ? page.words[bit / 64] : ~page.words[bit / 64]) >> UInt64(bit % 64)
            if word != 0 {
                let found = position + word.trailingZeroBitCount
                return found < end ? found : nil
            }
            position += 64 - bit % 64
        }
        return nil
    }

    /// All runs, ascending, at most `most` of them.
    package func runs(most: Int = .max) -> [Range<Int>] {
        var result: [Range<Int>] = []
        for number in pages.keys.sorted() {
            var position = number * Self.pageBits
            let end = position + Self.pageBits
            while let run = firstRun(in: position..<end) {
                position = run.upperBound
                if let last = result.last, last.upperBound == run.lowerBound {
                    result[result.count - 1] = last.lowerBound..<run.upperBound
                } else if result.count == most {
                    return result
                } else {
                    result.append(run)
                }
            }
        }
        return result
    }
}
