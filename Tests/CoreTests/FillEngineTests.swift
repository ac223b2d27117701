import HSMCore
import TestSupport
import Testing

@Suite struct FillEngineTests {
    @Test("A missing range is fetched, written, and then resident")
    func fill() async throws {
        let harness = EngineHarness()
        let (file, destination) = harness.file(granules: 10, tail: 100)
        let range = EngineHarness.bytes(3..<5)
        #expect(!harness.engine.isResident(range, of: file))
        #expect(await harness.answer(harness.ask(3..<5, of: file)) == nil)
        #expect(harness.engine.isResident(range, of: file) && destination.isRight(range))
        #expect(file.present.runs() == [3..<5])
        #expect(destination.state.withLock(\.completions) == 0)
        #expect(await harness.answer(harness.ask(0..<10, of: file)) == nil)
        #expect(destination.isRight(0..<file.layout.limit))
        #expect(destination.state.withLock(\.completions) > 0, "told before the waiter of the last granule is")
        try await until("peace") { file.isIdle }
        #expect(file.isComplete && harness.engine.waiting == 0)
        #expect(harness.counter("granulesFetched") == 10 && harness.counter("bytesFetched") == file.layout.limit)
    }

    @Test("The time that a fill takes is counted where it goes")
    func times() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, _) = harness.file(granules: 4)
        let waiter = harness.ask(0..<4, of: file)
        try await until("the read") { !harness.source.log.reads.isEmpty }
        try await Task.sleep(for: .milliseconds(20))
        harness.source.hold(false)
        #expect(await harness.answer(waiter) == nil)
        try await until("the end of the fetch") { harness.counter("remoteNanoseconds") > 0 }
        let (waited, remote) = (harness.counter("waitNanoseconds"), harness.counter("remoteNanoseconds"))
        #expect(waited >= 20_000_000 && remote >= 20_000_000)
        #expect(harness.counter("queueNanoseconds") > 0 && harness.counter("writeNanoseconds") > 0)
        #expect(harness.counter("queueNanoseconds") + harness.counter("writeNanoseconds") < waited)
    }

    @Test("64 waiters of one range fetch each granule exactly once")
    func singleFlight() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, destination) = harness.file(granules: 20)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<64 {
                group.addTask { #expect(await harness.answer(harness.ask(0..<20, of: file)) == nil) }
            }
            try await until("64 waiters") { harness.engine.waiting == 64 }
            harness.source.hold(false)
        }
        #expect(destination.state.withLock(\.writes) == Dictionary(uniqueKeysWithValues: (0..<20).map { ($0, 1) }))
        #expect(harness.counter("granulesFetched") == 20)
        #expect(harness.counter("misses") == 1 && harness.counter("joins") == 63)
        #expect(harness.source.log.reads.count == 5)
    }

    @Test("Waiters of overlapping ranges from many threads fetch each granule exactly once")
    func overlapping() async throws {
        let harness = EngineHarness(fetchGranules: 3)
        let (file, destination) = harness.file(granules: 64, tail: 5)
        await withTaskGroup { group in
            for reader in 0..<200 {
                group.addTask {
                    let start = reader * 37 % 60
                    #expect(await harness.answer(harness.ask(start..<start + 1 + reader % 4, of: file)) == nil)
                    #expect(destination.isRight(EngineHarness.bytes(start..<start + 1)))
                }
            }
        }
        #expect(destination.state.withLock { $0.writes.values.allSatisfy { $0 == 1 } })
        try await until("peace") { file.isIdle }
    }

    @Test("A present range is answered on the spot, and counted as a hit")
    func hit() async throws {
        let harness = EngineHarness()
        let (file, _) = harness.file(granules: 4)
        _ = await harness.answer(harness.ask(0..<4, of: file))
        let waiter = harness.ask(1..<2, of: file)
        #expect(harness.answers(to: waiter) == [nil])
        #expect(harness.counter("hits") == 1)
    }

    @Test("No more fetches run at once than are allowed, and all come to their turn")
    func concurrency() async throws {
        var configuration = FillEngine.Configuration()
        configuration.concurrentFetches = 3
        let harness = EngineHarness(.init(isHeld: true), configuration)
        let files = (0..<20).map { _ in harness.file(granules: 1) }
        let waiters = files.map { harness.ask(0..<1, of: $0.file) }
        try await until("three reads") { harness.source.log.running == 3 }
        harness.source.hold(false)
        for waiter in waiters { #expect(await harness.answer(waiter) == nil) }
        #expect(harness.source.log.maxRunning == 3 && harness.source.log.reads.count == 20)
    }

    @Test("Demand overtakes the background")
    func priority() async throws {
        var configuration = FillEngine.Configuration()
        configuration.concurrentFetches = 4
        let harness = EngineHarness(.init(isHeld: true), configuration)
        let files = (0..<10).map { _ in harness.file(granules: 1) }
        for (file, _) in files { harness.ask(0..<1, of: file, .background) }
        try await until("three reads") { harness.source.log.running == 3 }
        let urgent = harness.file(granules: 4)
        let waiter = harness.ask(3..<4, of: urgent.file)
        try await until("the demand to run") { harness.source.log.reads.last == EngineHarness.bytes(3..<4) }
        harness.source.hold(false)
        #expect(await harness.answer(waiter) == nil)
        try await until("all answers") { harness.answered == 11 }
    }

    @Test("Read-ahead doubles while it hits, and is fetched before it is asked for")
    func readAhead() async throws {
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 16 * EngineHarness.granuleSize
        let harness = EngineHarness(fetchGranules: 64, .init(), configuration)
        let (file, _) = harness.file(granules: 100)
        for granule in 0..<100 {
            if !harness.engine.isResident(EngineHarness.bytes(granule..<granule + 1), of: file) {
                #expect(await harness.answer(harness.ask(granule..<granule + 1, of: file)) == nil)
            }
            try await until("the read-ahead") { file.isIdle }
        }
        let sizes = harness.source.log.reads.map { $0.count / EngineHarness.granuleSize }
        #expect(sizes.first == 1 && sizes.contains(4), "one demand, and then the first window")
        #expect(sizes.contains { $0 >= 8 } && sizes.reduce(0, +) == 100)
        #expect(harness.counter("misses") == 2 && harness.counter("prefetches") == sizes.count - 2)
    }
}
