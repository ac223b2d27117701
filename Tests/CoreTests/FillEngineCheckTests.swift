import HSMCore
import TestSupport
import Testing

/// Content that has to be found right as a whole, and a remote that is asked again.
@Suite struct FillEngineCheckTests {
    private let wrong = FillError(.io, .wrongContent, "wrong")
    private let broken = FillError(.io, .remoteFailed, "broken")

    @Test("The last granule is present, and the file complete, only when the content was found right")
    func last() async throws {
        let harness = EngineHarness()
        let (file, destination) = harness.file(granules: 10, tail: 100, check: .last)
        #expect(await harness.answer(harness.ask(0..<9, of: file)) == nil)
        #expect(file.present.runs() == [0..<9] && destination.state.withLock(\.checks) == 0)
        #expect(await harness.answer(harness.ask(9..<10, of: file)) == nil)
        #expect(file.isComplete && destination.isRight(0..<10 * EngineHarness.granuleSize - 100))
        try await until("the completion") { destination.state.withLock(\.completions) > 0 }
        #expect(destination.state.withLock(\.checks) == 1)
    }

    @Test("Wrong content fails whoever waits and whoever comes later, and is never complete; what was present stays")
    func wrongLast() async throws {
        let harness = EngineHarness()
        let (file, destination) = harness.file(granules: 10, check: .last)
        destination.state.withLock { $0.verdict = wrong }
        #expect(await harness.answer(harness.ask(0..<8, of: file)) == nil)
        let waiters = [harness.ask(8..<10, of: file), harness.ask(0..<10, of: file)]
        for waiter in waiters { #expect(await harness.answer(waiter) == wrong) }
        #expect(file.isRefused && !file.isComplete)
        let reads = harness.source.log.reads.count
        #expect(await harness.answer(harness.ask(9..<10, of: file)) == wrong)
        #expect(harness.answers(to: harness.ask(0..<8, of: file)) == [nil])
        #expect(harness.source.log.reads.count == reads, "nothing more is asked for")
        try await until("peace") { file.isIdle }
        #expect(destination.state.withLock { $0.completions == 0 && $0.checks == 1 })
        #expect(harness.counter("errors") == 1)
    }

    @Test(
        "With everything held, nothing is present before all of it is right, whatever is asked for",
        arguments: [true, false])
    func all(isRight: Bool) async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, destination) = harness.file(granules: 20, present: 3..<6, check: .all)
        if !isRight { destination.state.withLock { $0.verdict = wrong } }
        #expect(file.present.isEmpty, "what was filled before is not checked either")
        let waiter = harness.ask(4..<5, of: file)
        harness.source.hold(false)
        #expect(await harness.answer(waiter) == (isRight ? nil : wrong))
        #expect(file.present.runs() == (isRight ? [0..<20] : []))
        let asked = harness.source.log.reads.reduce(0) { $0 + $1.count }
        #expect(asked == 17 * EngineHarness.granuleSize, "what was there is not fetched again")
    }

    @Test(
        "A file of which everything was there already is checked when it is first read",
        arguments: [FillState.Check.last, .all])
    func later(check: FillState.Check) async throws {
        let harness = EngineHarness()
        let (file, destination) = harness.file(granules: 4, present: 0..<4, check: check)
        #expect(!file.isComplete)
        #expect(await harness.answer(harness.ask(0..<4, of: file)) == nil)
        #expect(file.isComplete && harness.source.log.reads.isEmpty)
        #expect(destination.state.withLock(\.checks) == 1)
    }

    @Test("What was overwritten locally while it was held is not taken from the fetch")
    func written() async throws {
        let harness = EngineHarness()
        let (file, destination) = harness.file(granules: 4, present: 0..<4, check: .last)
        let write = harness.makeWaiter()
        harness.engine.beginExclusiveWrite(3..<4, of: file, waiter: write)
        #expect(await harness.answer(write) == nil)
        #expect(!file.isComplete)
        harness.engine.endExclusiveWrite(write, of: file, present: 3..<4)
        #expect(file.isComplete && destination.state.withLock(\.checks) == 0)
    }

    @Test("A remote that fails is asked again, only for what has not come, and the reader notices nothing")
    func retry() async throws {
        let harness = EngineHarness(fetchGranules: 8)
        harness.source.behaviour.withLock {
            $0.failure = (5 * EngineHarness.granuleSize, broken)
            $0.failuresLeft = 3
        }
        let (file, destination) = harness.file(granules: 8)
        #expect(await harness.answer(harness.ask(0..<8, of: file)) == nil)
        #expect(destination.isRight(0..<8 * EngineHarness.granuleSize))
        let rest = EngineHarness.bytes(5..<8)
        #expect(harness.source.log.reads == [EngineHarness.bytes(0..<8), rest, rest, rest])
        #expect(harness.counter("retries") == 3 && harness.counter("errors") == 0)
        #expect(destination.state.withLock(\.errors).isEmpty)
    }

    @Test("A remote that goes on failing is given up after four attempts, and nothing is written")
    func giveUp() async throws {
        let harness = EngineHarness()
        harness.source.behaviour.withLock { $0.failure = (0, broken) }
        let (file, destination) = harness.file(granules: 4)
        #expect(await harness.answer(harness.ask(0..<4, of: file)) == broken)
        try await until("peace") { file.isIdle }
        #expect(harness.source.log.reads.count == 4 && file.present.isEmpty)
        #expect(destination.state.withLock { $0.writes.isEmpty && $0.errors == [broken] })
    }

    @Test("What does not get better by itself is not asked for again")
    func noRetry() async throws {
        for error in [
            FillError(.io, .remoteChanged, "changed"), FillError(.io, .remoteGone, "gone"),
            FillError(.permission, .remoteFailed, "forbidden"),
        ] {
            let harness = EngineHarness()
            harness.source.behaviour.withLock { $0.failure = (0, error) }
            let (file, _) = harness.file(granules: 4)
            #expect(await harness.answer(harness.ask(0..<4, of: file)) == error)
            #expect(harness.source.log.reads.count == 1)
        }
    }

    @Test(
        "A remote that names a time to come back is left alone for that long, or given up when nobody would wait for it"
    )
    func retryAfter() async throws {
        let start = ContinuousClock.now
        for (wait, reads) in [(Duration.milliseconds(30), 4), (.seconds(61), 1)] {
            let busy = FillError(.io, .remoteFailed, "busy", retryAfter: wait)
            var configuration = FillEngine.Configuration()
            configuration.retries.firstPause = .zero
            let harness = EngineHarness(.init(), configuration)
            harness.source.behaviour.withLock { $0.failure = (0, busy) }
            let (file, _) = harness.file(granules: 4)
            #expect(await harness.answer(harness.ask(0..<4, of: file)) == busy)
            #expect(harness.source.log.reads.count == reads)
        }
        #expect(ContinuousClock.now - start >= .milliseconds(90))
    }

    @Test("A waiter that gives up ends the pauses between the attempts")
    func cancelledPause() async throws {
        var configuration = FillEngine.Configuration()
        configuration.retries.firstPause = .seconds(1000)
        let harness = EngineHarness(.init(), configuration)
        harness.source.behaviour.withLock { $0.failure = (0, broken) }
        let (file, destination) = harness.file(granules: 4)
        let waiter = harness.ask(0..<4, of: file)
        try await until("the first attempt") { harness.source.log.reads.count == 1 }
        harness.engine.cancel(waiter)
        try await until("peace") { file.isIdle }
        #expect(destination.state.withLock(\.errors).isEmpty, "a cancelled fetch is no failure")
    }

    @Test(
        "A remote that sends too much is never believed to the end, and nothing of the piece that is too long is written"
    )
    func long() async throws {
        let harness = EngineHarness(.init(extra: 1, chunk: 1 << 20))
        let (file, destination) = harness.file(granules: 4)
        #expect(await harness.answer(harness.ask(0..<4, of: file))?.reason == .remoteFailed)
        #expect(file.present.isEmpty && destination.state.withLock(\.writes).isEmpty)
        #expect(harness.source.log.reads.count == 4)
    }

    @Test("A look-up of what the remote has now is answered once, also when it fails, is cancelled, or comes too late")
    func lookUp() async throws {
        let harness = EngineHarness()
        let waiter = harness.makeWaiter()
        harness.engine.lookUp(RemoteKey([97]), waiter: waiter) { (_, _) throws(FillError) in }
        #expect(await harness.answer(waiter)?.reason == .remoteGone)
        harness.engine.shutDown()
        let late = harness.makeWaiter()
        harness.engine.lookUp(RemoteKey([97]), waiter: late) { (_, _) throws(FillError) in }
        #expect(await harness.answer(late)?.reason == .shutdown)
        #expect(harness.engine.waiting == 0)
    }
}
