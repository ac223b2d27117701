/// A set of granule numbers: runs of full pages, and bitmaps for the other pages. Its memory depends on how often a
/// file's content alternates between present and absent, and not on the file's size.
///
/// A value type. Every operation is linear in the pages and runs that it touches.
package struct GranuleSet: Sendable, Equatable {
    /// 4,096 bits, of which some are set and some are not. Empty pages are not stored, and full ones are in ``full``.
    private struct Page: Sendable, Equatable {
        var words: [UInt64]
        var count: Int

        static let empty = Page(words: .init(repeating: 0, count: GranuleSet.wordsPerPage), count: 0)
        static let full = Page(words: .init(repeating: ~0, count: GranuleSet.wordsPerPage), count: GranuleSet.pageBits)
    }

    private static let wordsPerPage = 64
    private static let pageBits = 4096

    private var pages: [Int: Page] = [:]
    /// The numbers of the pages that are full.
    private var full = Runs()
    /// The number of granules in the set.
    package private(set) var count = 0

    package init() {}

    package init(_ granules: Range<Int>) { insert(granules) }

    package var isEmpty: Bool { count == 0 }

    package func contains(_ granule: Int) -> Bool {
        guard let page = pages[granule / Self.pageBits] else { return full.run(at: granule / Self.pageBits) != nil }
        let bit = granule % Self.pageBits
        return page.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    package func contains(_ granules: Range<Int>) -> Bool {
        granules.isEmpty || firstGap(in: granules) == nil
    }

    package mutating func insert(_ granules: Range<Int>) { update(granules, insert: true) }

    package mutating func remove(_ granules: Range<Int>) { update(granules, insert: false) }

    private mutating func update(_ granules: Range<Int>, insert: Bool) {
        guard !granules.isEmpty else { return }
        let bits = Self.pageBits
        let (first, last) = (granules.lowerBound / bits, (granules.upperBound - 1) / bits)
        // Pages that lie wholly in `granules`: there may be many more than exist.
        let start = granules.lowerBound % bits == 0 ? first : first + 1
        let whole = start..<max(start, granules.upperBound / bits)
        if !whole.isEmpty { updateWhole(whole, insert: insert) }
        for number in first == last ? [first] : [first, last] where !whole.contains(number) {
            update(page: number, granules, insert: insert)
        }
    }

    private mutating func updateWhole(_ numbers: Range<Int>, insert: Bool) {
        let known =
            numbers.count < pages.count ? numbers.filter { pages[$0] != nil } : pages.keys.filter(numbers.contains)
        for number in known { count -= pages.removeValue(forKey: number)?.count ?? 0 }
        count -= full.remove(numbers) * Self.pageBits
        if insert {
            full.insert(numbers)
            count += numbers.count * Self.pageBits
        }
    }

    private mutating func update(page number: Int, _ granules: Range<Int>, insert: Bool) {
        let isFull = full.run(at: number) != nil
        // This also covers the last page of "everything from here on", whose end would overflow.
        if isFull && insert || !isFull && !insert && pages[number] == nil { return }
        if isFull { _ = full.remove(number..<number + 1) }
        let base = number * Self.pageBits
        let bits = granules.clamped(to: base..<base + Self.pageBits)
        var page = pages.removeValue(forKey: number) ?? (isFull ? .full : .empty)
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
        if page.count == Self.pageBits {
            full.insert(number..<number + 1)
        } else if page.count > 0 {
            pages[number] = page
        }
    }

    /// The first run of granules in `range` that are not in the set, cut off at the end of `range`.
    package func firstGap(in range: Range<Int>) -> Range<Int>? {
        guard let start = next(from: range.lowerBound, to: range.upperBound, member: false) else { return nil }
        return start..<(next(from: start, to: range.upperBound, member: true) ?? range.upperBound)
    }

    /// The first granule in `range` that is not in the set.
    package func firstAbsent(in range: Range<Int>) -> Int? {
        next(from: range.lowerBound, to: range.upperBound, member: false)
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
            if let run = full.run(at: number) {
                if member { return position }
                position = run.upperBound * Self.pageBits
                continue
            }
            guard let page = pages[number] else {
                if !member { return position }
                let last = (end - 1) / Self.pageBits
                if last - number < pages.count {
                    position = (number + 1) * Self.pageBits
                    continue
                }
                // No page before the next existing one has members.
                guard let following = nextPage(after: number) else { return nil }
                position = following * Self.pageBits
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

    private func nextPage(after number: Int) -> Int? {
        let partial = pages.keys.filter { $0 > number }.min()
        let whole = full.next(after: number)
        guard let partial, let whole else { return partial ?? whole }
        return min(partial, whole)
    }

    /// All runs, ascending, at most `maxCount` of them.
    package func runs(maxCount: Int = .max) -> [Range<Int>] {
        var result: [Range<Int>] = []
        let parts = pages.keys.map { $0..<$0 + 1 } + full.all
        for part in parts.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            var position = part.lowerBound * Self.pageBits
            let end = part.upperBound * Self.pageBits
            while let run = firstRun(in: position..<end) {
                position = run.upperBound
                if let last = result.last, last.upperBound == run.lowerBound {
                    result[result.count - 1] = last.lowerBound..<run.upperBound
                } else if result.count == maxCount {
                    return result
                } else {
                    result.append(run)
                }
            }
        }
        return result
    }
}
