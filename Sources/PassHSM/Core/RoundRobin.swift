/// A first-in, first-out queue. Taking an element takes constant time on average. Pure.
struct Fifo<Element: Sendable>: Sendable {
    private var items: [Element] = []
    private var head = 0

    var count: Int { items.count - head }
    var isEmpty: Bool { head == items.count }
    var first: Element? { isEmpty ? nil : items[head] }

    mutating func append(_ element: Element) { items.append(element) }

    mutating func popFirst() -> Element? {
        guard head < items.count else { return nil }
        defer {
            head += 1
            if head > 64, head * 2 > items.count {
                items.removeFirst(head)
                head = 0
            }
        }
        return items[head]
    }

    mutating func removeAll(where isGone: (Element) -> Bool) {
        items.removeFirst(head)
        head = 0
        items.removeAll(where: isGone)
    }
}

/// Items of several owners, taken in turn: one of each owner, and those of an owner in order of arrival. Pure.
struct RoundRobin<Owner: Hashable & Sendable, Item: Sendable>: Sendable {
    private var queues: [Owner: Fifo<Item>] = [:]
    private var turns = Fifo<Owner>()

    var isEmpty: Bool { turns.isEmpty }
    var count: Int { queues.values.reduce(0) { $0 + $1.count } }

    mutating func add(_ item: Item, of owner: Owner) {
        if queues[owner] == nil { turns.append(owner) }
        queues[owner, default: .init()].append(item)
    }

    /// Takes the next item of an owner that `allows` admits. Other owners keep their turn.
    ///
    /// - Parameter allows: whether an owner may have an item now.
    mutating func next(_ allows: (Owner) -> Bool = { _ in true }) -> Item? {
        for _ in 0..<turns.count {
            guard let owner = turns.popFirst() else { return nil }
            if allows(owner), var queue = queues.removeValue(forKey: owner) {
                let item = queue.popFirst()
                if !queue.isEmpty {
                    queues[owner] = queue
                    turns.append(owner)
                }
                if let item { return item }
            } else {
                turns.append(owner)
            }
        }
        return nil
    }

    mutating func removeAll(where isGone: (Item) -> Bool) {
        for owner in Array(queues.keys) { queues[owner]?.removeAll(where: isGone) }
        queues = queues.filter { !$0.value.isEmpty }
        turns.removeAll { queues[$0] == nil }
    }
}
