import Testing

@testable import HSMCore

/// `#expect` takes no mutating call.
private final class Queue {
    private var queue: FetchQueue<Int>

    init(limit: Int) { queue = FetchQueue(limit: limit) }

    func add(_ id: Int, _ priority: FillState.Priority) { queue.add(id, priority) }
    func promote(_ id: Int) { queue.promote(id) }
    func removeWaiting(_ id: Int) -> Bool { queue.removeWaiting(id) }
    func ended(_ id: Int) { queue.ended(id) }
    func next() -> Int? { queue.next() }

    /// Everything that may run now.
    func drain() -> [Int] {
        var result: [Int] = []
        while let next = queue.next() { result.append(next) }
        return result
    }
}

@Suite struct FetchQueueTests {
    @Test("Demand runs before prefetch, prefetch before background, each in order of arrival")
    func order() {
        let queue = Queue(limit: 100)
        queue.add(1, .background)
        queue.add(2, .prefetch)
        queue.add(3, .demand)
        queue.add(4, .background)
        queue.add(5, .prefetch)
        queue.add(6, .demand)
        #expect(queue.drain() == [3, 6, 2, 5, 1, 4])
    }

    @Test("No more run than the limit allows, and a place that gets free is used")
    func limit() {
        let queue = Queue(limit: 3)
        for id in 0..<5 { queue.add(id, .demand) }
        #expect(queue.drain() == [0, 1, 2])
        queue.ended(1)
        #expect(queue.drain() == [3])
        queue.ended(99)
        #expect(queue.drain().isEmpty, "an unknown fetch frees no place")
    }

    @Test("A quarter of the places is kept for demand", arguments: [FillState.Priority.prefetch, .background])
    func reserve(priority: FillState.Priority) {
        let queue = Queue(limit: 4)
        for id in 0..<8 { queue.add(id, priority) }
        #expect(queue.drain() == [0, 1, 2])
        queue.add(100, .demand)
        #expect(queue.drain() == [100])
    }

    @Test(
        "A limit of one still lets every priority run", arguments: [FillState.Priority.demand, .prefetch, .background])
    func one(priority: FillState.Priority) {
        let queue = Queue(limit: 0)
        queue.add(1, priority)
        #expect(queue.drain() == [1])
    }

    @Test("A promoted fetch queues with the demand")
    func promote() {
        let queue = Queue(limit: 100)
        queue.add(1, .background)
        queue.add(2, .background)
        queue.add(3, .demand)
        queue.promote(2)
        queue.promote(77)
        #expect(queue.drain() == [3, 2, 1])
    }

    @Test("Only a fetch that still waits can be removed")
    func remove() {
        let queue = Queue(limit: 1)
        queue.add(1, .demand)
        queue.add(2, .demand)
        #expect(queue.next() == 1)
        #expect(!queue.removeWaiting(1))
        #expect(queue.removeWaiting(2))
        queue.ended(1)
        #expect(queue.next() == nil)
    }
}
