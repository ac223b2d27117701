import Glibc
import HSMSystem
import Synchronization
import TestSupport
import Testing

@Suite struct BlockingPoolTests {
    /// Jobs that end when all of them are under way.
    private static func meet(_ count: Int, on pool: BlockingPool, _ isDone: @escaping @Sendable () -> Void) {
        let arrived = Mutex(0)
        let everybody = Condition()
        for _ in 0..<count {
            pool.run {
                everybody.lock()
                let isLast = arrived.withLock { arrived in
                    arrived += 1
                    return arrived == count
                }
                if isLast { everybody.broadcast() }
                while arrived.withLock({ $0 }) < count { everybody.wait() }
                everybody.unlock()
                isDone()
            }
        }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [1, 2, 16])
    func `as many jobs as the limit allows are under way at once, also of threads that were idle`(
        limit: Int
    ) async {
        let pool = BlockingPool(name: "test", limit: limit)
        for _ in 0..<50 {
            let (ends, end) = AsyncStream.makeStream(of: Void.self)
            Self.meet(limit, on: pool) { end.yield() }
            var rest = limit
            for await _ in ends {
                rest -= 1
                if rest == 0 { break }
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func `no job is lost, whatever comes at once`() async {
        let pool = BlockingPool(name: "test", limit: 4)
        let sum = await withTaskGroup(of: Int.self) { group in
            for number in 0..<10_000 { group.addTask(executorPreference: pool) { number } }
            return await group.reduce(0, +)
        }
        #expect(sum == 10_000 * 9_999 / 2)
    }

    @Test(.timeLimit(.minutes(1)), arguments: [1, 4])
    func `when there has been no work for a while after some, the pool says so once`(limit: Int) async throws {
        let calls = Mutex(0)
        let pool = BlockingPool(name: "test", limit: limit, afterWork: (0.2, { calls.withLock { $0 += 1 } }))
        for _ in 1...3 {
            let before = calls.withLock { $0 }
            // Work that goes on for longer than that.
            var (last, longest) = (ContinuousClock.now, Duration.zero)
            for _ in 0..<20 {
                await withTaskGroup { group in
                    for _ in 0..<limit { group.addTask(executorPreference: pool) { usleep(10_000) } }
                }
                (last, longest) = (.now, max(longest, .now - last))
            }
            let during = calls.withLock { $0 }
            // On a machine that is busy enough it may really have had no work.
            if longest < .milliseconds(200) {
                #expect(during == before, "it is not called between one piece of work and the next")
            }
            try await until("the call") { calls.withLock { $0 } > during }
            try await Task.sleep(for: .milliseconds(300))
            #expect(calls.withLock { $0 } == during + 1)
        }
    }
}

@Suite struct TurnLimitTests {
    private final class Inside: Sendable {
        private let state = Mutex((now: 0, most: 0))

        var most: Int { state.withLock(\.most) }

        func change(by change: Int) {
            state.withLock { state in
                state.now += change
                state.most = max(state.most, state.now)
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func `so many are inside at once, and everybody gets in`() async {
        let limit = TurnLimit(3)
        let inside = Inside()
        await withTaskGroup { group in
            for _ in 0..<100 {
                group.addTask {
                    await limit.enter()
                    inside.change(by: 1)
                    try? await Task.sleep(for: .milliseconds(1))
                    inside.change(by: -1)
                    limit.leave()
                }
            }
        }
        #expect(inside.most == 3)
    }
}
