import Testing

@testable import HSMCore

/// `#expect` takes no mutating call.
private final class Queue {
    private var queue: FetchQueue<Int>

    private let files = (0..<8).map { _ in File() }

    private final class File {}

    init(limit: Int, maxStalled: Int = 0) { queue = FetchQueue(limit: limit, maxStalled: maxStalled) }

    func add(_ id: Int, _ priority: FillState.Priority, user: UInt32 = 0, file: Int = 0) {
        queue.add(id, priority, .init(user: user, file: ObjectIdentifier(files[file])))
    }
    func promote(_ id: Int) { queue.promote(id) }
    func stall(_ id: Int) -> Bool { queue.stall(id) }
    func resume(_ id: Int) { queue.resume(id) }
    var left: Int { queue.waitingNumbers }
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

    @Test("Users come in turn, and of a user the files, however many each asks for")
    func turns() {
        let queue = Queue(limit: 8)
        for id in 0..<100 { queue.add(id, .demand, user: 1, file: 1) }
        for id in 100..<110 { queue.add(id, .demand, user: 1, file: 2) }
        for id in 200..<210 { queue.add(id, .demand, user: 2, file: 3) }
        #expect(queue.drain() == [0, 200, 100, 201, 1, 202, 101, 203])
    }

    @Test("A user of whom nothing runs gets a place at once, also when others have all of them")
    func newcomer() {
        let queue = Queue(limit: 8)
        for id in 0..<100 { queue.add(id, .demand, user: 1) }
        #expect(queue.drain().count == 8)
        queue.add(200, .demand, user: 2)
        queue.add(201, .demand, user: 2)
        #expect(queue.drain() == [200])
        queue.add(300, .demand, user: 3)
        queue.add(400, .demand, user: 4)
        #expect(queue.drain() == [300], "beyond the limit there is a quarter of it")
    }

    @Test("While there are others a user keeps no more than three quarters of the places, and a file half of them")
    func caps() {
        let queue = Queue(limit: 8)
        queue.add(200, .demand, user: 2, file: 2)
        for id in 0..<100 { queue.add(id, .demand, user: 1, file: 1) }
        #expect(queue.drain() == [200, 0, 1, 2, 3])
        for id in 100..<110 { queue.add(id, .demand, user: 1, file: 3) }
        #expect(queue.drain() == [100, 101])
        let alone = Queue(limit: 8)
        for id in 0..<100 { alone.add(id, .demand, user: 1, file: 1) }
        #expect(alone.drain().count == 8)
    }

    @Test("Prefetches and background work come to their turn whatever the demand")
    func noStarving() {
        let queue = Queue(limit: 4)
        for id in 0..<1000 { queue.add(id, .demand) }
        for id in 1000..<1100 { queue.add(id, .prefetch) }
        for id in 2000..<2100 { queue.add(id, .background) }
        var run = queue.drain()
        for index in 0..<60 {
            queue.ended(run[index])
            run += queue.drain()
        }
        #expect(run.count == 64)
        #expect(run.count { (1000..<2000).contains($0) } == 12 && run.count { $0 >= 2000 } == 4)
    }

    @Test("Fetches of which nothing comes leave their places, as many as the second limit, and one user half of it")
    func stalled() {
        let queue = Queue(limit: 4, maxStalled: 8)
        for id in 0..<100 { queue.add(id, .demand, user: 1) }
        var run = queue.drain()
        #expect(run == [0, 1, 2, 3])
        for id in run { #expect(queue.stall(id)) }
        run = queue.drain()
        #expect(run == [4, 5, 6, 7])
        #expect(!queue.stall(4), "one user has half of them")
        queue.ended(0)
        #expect(queue.drain().isEmpty, "it held no place")
        #expect(queue.stall(4))
        #expect(queue.drain() == [8])
        queue.resume(1)
        queue.ended(5)
        #expect(queue.drain().isEmpty, "what goes on counts again")
        queue.ended(1)
        #expect(queue.drain() == [9])
        queue.add(200, .demand, user: 2)
        #expect(queue.drain() == [200])
        #expect(queue.stall(200))
    }

    @Test("Asking and giving up again and again leaves nothing behind")
    func cycles() {
        let queue = Queue(limit: 1)
        queue.add(-1, .demand, user: 9)
        #expect(queue.next() == -1)
        for id in 0..<10_000 {
            queue.add(id, .background, user: UInt32(id % 3), file: id % 8)
            queue.promote(id)
            #expect(queue.removeWaiting(id))
        }
        queue.add(20_000, .demand, user: 9)
        queue.ended(-1)
        #expect(queue.drain() == [20_000])
        #expect(queue.left < 200)
    }
}
