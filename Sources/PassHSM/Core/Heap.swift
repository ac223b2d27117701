/// A priority queue: the least element comes first. Pure.
struct Heap<Element: Comparable & Sendable>: Sendable {
    private(set) var items: [Element] = []

    init() {}

    init(_ items: [Element]) {
        self.items = items
        for index in stride(from: items.count / 2 - 1, through: 0, by: -1) { sink(index) }
    }

    var count: Int { items.count }
    var isEmpty: Bool { items.isEmpty }
    /// The least element.
    var first: Element? { items.first }

    mutating func push(_ element: Element) {
        items.append(element)
        var index = items.count - 1
        while index > 0, items[index] < items[(index - 1) / 2] {
            items.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    /// Takes the least element.
    @discardableResult
    mutating func pop() -> Element? {
        guard let last = items.popLast() else { return nil }
        guard let first = items.first else { return last }
        items[0] = last
        sink(0)
        return first
    }

    /// Takes over all elements of another heap. The smaller heap is pushed into the larger one, so that when many heaps
    /// become one, each element is pushed at most log n times.
    mutating func merge(_ other: Heap) {
        var small = other
        if small.count > count { swap(&self, &small) }
        for element in small.items { push(element) }
    }

    private mutating func sink(_ start: Int) {
        var index = start
        while true {
            let left = 2 * index + 1
            guard left < items.count else { return }
            let least = left + 1 < items.count && items[left + 1] < items[left] ? left + 1 : left
            guard items[least] < items[index] else { return }
            items.swapAt(index, least)
            index = least
        }
    }
}
