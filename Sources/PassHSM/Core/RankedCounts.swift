/// A multiset of numbers that counts the members below a given number: a binary indexed tree in a dictionary, whose
/// size depends on its members and not on their range. Every operation takes as many steps as the limit has binary
/// digits. Pure.
struct RankedCounts: Sendable {
    private var tree: [Int: Int] = [:]
    private let size: Int

    /// - Parameter limit: the largest number.
    init(upTo limit: Int) {
        var size = 1
        while size < limit + 1 { size *= 2 }
        self.size = size
    }

    mutating func insert(_ number: Int) { add(1, at: number) }
    mutating func remove(_ number: Int) { add(-1, at: number) }

    private mutating func add(_ change: Int, at number: Int) {
        var index = number + 1
        while index <= size {
            let sum = tree[index, default: 0] + change
            tree[index] = sum == 0 ? nil : sum
            index += index & -index
        }
    }

    func count(below number: Int) -> Int {
        var (index, sum) = (min(number, size), 0)
        while index > 0 {
            sum += tree[index] ?? 0
            index -= index & -index
        }
        return sum
    }
}
