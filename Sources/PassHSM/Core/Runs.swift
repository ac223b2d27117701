/// A set of numbers as sorted runs that neither overlap nor touch. A value type.
struct Runs: Sendable, Equatable {
    private(set) var all: [Range<Int>] = []

    /// How many runs end at or before `number`. If a run holds `number`, this is its index.
    private func index(at number: Int) -> Int {
        var (low, high) = (0, all.count)
        while low < high {
            let middle = (low + high) / 2
            if all[middle].upperBound <= number { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The run that holds `number`; nil when none does.
    func run(at number: Int) -> Range<Int>? {
        let index = index(at: number)
        return index < all.count && all[index].lowerBound <= number ? all[index] : nil
    }

    /// The first member after `number`; nil when there is none.
    func next(after number: Int) -> Int? {
        let index = index(at: number + 1)
        return index < all.count ? max(all[index].lowerBound, number + 1) : nil
    }

    /// Adds `numbers`, none of which is in the set.
    mutating func insert(_ numbers: Range<Int>) {
        let index = index(at: numbers.lowerBound)
        var (merged, replaced) = (numbers, index..<index)
        if index > 0, all[index - 1].upperBound == numbers.lowerBound {
            (merged, replaced) = (all[index - 1].lowerBound..<numbers.upperBound, index - 1..<index)
        }
        if index < all.count, all[index].lowerBound == numbers.upperBound {
            merged = merged.lowerBound..<all[index].upperBound
            replaced = replaced.lowerBound..<index + 1
        }
        all.replaceSubrange(replaced, with: [merged])
    }

    /// Removes `numbers`. Returns how many of them were members.
    mutating func remove(_ numbers: Range<Int>) -> Int {
        let first = index(at: numbers.lowerBound)
        var (end, count) = (first, 0)
        var left: [Range<Int>] = []
        while end < all.count, all[end].lowerBound < numbers.upperBound {
            count += all[end].clamped(to: numbers).count
            if all[end].lowerBound < numbers.lowerBound { left.append(all[end].lowerBound..<numbers.lowerBound) }
            if all[end].upperBound > numbers.upperBound { left.append(numbers.upperBound..<all[end].upperBound) }
            end += 1
        }
        if end > first { all.replaceSubrange(first..<end, with: left) }
        return count
    }
}
