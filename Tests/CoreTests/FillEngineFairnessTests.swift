import TestSupport
import Testing

@testable import HSMCore

/// Who gets a place at the remote, and how long a fetch keeps it.
@Suite struct FillEngineFairnessTests {
    private let broken = FillError(.io, .remoteFailed, "broken")

    private func harness(
        places: Int, _ behaviour: FakeRemote.Behaviour = .init(),
        _ change: (inout FillEngine.Configuration) -> Void = { _ in }
    ) -> EngineHarness {
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 0
        configuration.concurrentFetches = places
        configuration.stalledFetches = 4 * places
        change(&configuration)
        return EngineHarness(behaviour, configuration)
    }

    @Test("Thousands of requests of one user for a large file keep another user's small file waiting for nothing")
    func users() async throws {
        let harness = harness(places: 16, .init(isHeld: true))
        let large = harness.file(granules: 8000)
        for granule in 0..<8000 { harness.ask(granule..<granule + 1, of: large.file, .prefetch, user: 1) }
        let demand = (0..<100).map { harness.ask($0..<$0 + 1, of: large.file, user: 1) }
        try await until("all places") { harness.source.log.running == 16 }
        let small = harness.file(granules: 1)
        let waiter = harness.ask(0..<1, of: small.file, user: 2)
        try await until("the other user's read") { harness.source.log.running == 17 }
        harness.source.hold(false)
        #expect(await harness.answer(waiter) == nil)
        for waiter in demand { #expect(await harness.answer(waiter) == nil) }
        harness.engine.shutDown()
        try await until("peace") { large.file.isIdle }
    }

    @Test("Objects that hang keep no others waiting, also of the same user, and are answered when they come")
    func hanging() async throws {
        let harness = harness(places: 4)
        harness.source.setBarrier(0)
        let hanging = (0..<8).map { _ in harness.file(granules: 1) }
        let waiters = hanging.map { harness.ask(0..<1, of: $0.file) }
        try await until("all places") { harness.source.log.running == 4 }
        let other = harness.file(granules: 8)
        let waiter = harness.ask(4..<8, of: other.file)
        harness.expire(after: 1)
        #expect(harness.source.log.running == 4)
        harness.expire(after: 3)
        try await until("the other four") { harness.source.log.running == 8 }
        harness.expire(after: 6)
        #expect(await harness.answer(waiter) == nil, "behind the barrier nothing hangs")
        #expect(waiters.allSatisfy { harness.answers(to: $0).isEmpty })
        harness.source.setBarrier(nil)
        for waiter in waiters { #expect(await harness.answer(waiter) == nil) }
        try await until("peace") { hanging.allSatisfy { $0.file.isIdle } }
        #expect(harness.source.log.maxRunning == 9)
    }

    @Test("A fetch that waits before it asks again has no place meanwhile")
    func pauses() async throws {
        let harness = harness(places: 1) { $0.retries.firstPause = .seconds(1000) }
        harness.source.behaviour.withLock { $0.failure = (0, broken) }
        let failing = (0..<5).map { _ in harness.file(granules: 1) }
        for file in failing { harness.ask(0..<1, of: file.file) }
        try await until("five attempts") { harness.source.log.reads.count == 5 }
        let other = harness.file(granules: 2)
        #expect(await harness.answer(harness.ask(1..<2, of: other.file)) == nil)
        harness.engine.shutDown()
        try await until("peace") { failing.allSatisfy { $0.file.isIdle } }
    }

    @Test("A fetch that has waited is in turn for a place again, and can be cancelled there")
    func again() async throws {
        let harness = harness(places: 1) { $0.retries.firstPause = .milliseconds(100) }
        harness.source.behaviour.withLock { ($0.failure, $0.failuresLeft) = ((0, broken), 1) }
        let (file, _) = harness.file(granules: 1)
        let waiter = harness.ask(0..<1, of: file)
        try await until("the first attempt") {
            harness.source.log.reads.count == 1 && harness.source.log.running == 0
        }
        harness.source.setBarrier(EngineHarness.granuleSize)
        let other = harness.file(granules: 2)
        let blocker = harness.ask(1..<2, of: other.file)
        try await until("the place to be taken") { harness.source.log.running == 1 }
        try? await Task.sleep(for: .milliseconds(300))
        #expect(harness.source.log.reads.count == 2 && harness.answers(to: waiter).isEmpty, "it waits for a place")
        harness.engine.cancel(waiter)
        _ = await harness.answer(waiter)
        try await until("the fetch to end") { file.isIdle }
        harness.source.setBarrier(nil)
        #expect(await harness.answer(blocker) == nil)
    }

    @Test("A prefetch comes on while demand keeps every place busy")
    func prefetch() async throws {
        let harness = harness(places: 2)
        let busy = (0..<200).map { _ in harness.file(granules: 1) }
        harness.source.hold(true)
        for file in busy { harness.ask(0..<1, of: file.file) }
        let ahead = harness.file(granules: 1)
        let waiter = harness.ask(0..<1, of: ahead.file, .prefetch)
        harness.source.hold(false)
        #expect(await harness.answer(waiter) == nil)
        try await until("all of them") { harness.answered == 201 }
        let place = harness.source.log.reads.count
        #expect(place == 201)
    }
}
