import HSMCore
import TestSupport
import Testing

/// The engine while nobody answers at the remote.
@Suite struct FillEngineOutageTests {
    private let outage = FillError(.io, .remoteFailed, "no connection", isOutage: true)

    private func harness(_ offline: RemoteHealth.Offline) -> EngineHarness {
        var configuration = FillEngine.Configuration.prompt
        configuration.offline = offline
        configuration.circuitBreaker.idleTimeout = .zero
        configuration.circuitBreaker.firstPause = .milliseconds(1)
        configuration.circuitBreaker.maxPause = .milliseconds(5)
        configuration.circuitBreaker.probeTime = .milliseconds(50)
        let harness = EngineHarness(.init(), configuration)
        harness.source.goDown(outage)
        return harness
    }

    @Test func `with error, reads fail at once while it is down, ask nobody, and work again when it is back`()
        async throws
    {
        let harness = harness(.error)
        let (file, destination) = harness.file(granules: 8)
        #expect(await harness.answer(harness.ask(0..<1, of: file)) == outage)
        #expect(harness.engine.remoteHealth.isDown && harness.engine.remoteHealth.outage?.cause == "no connection")
        let reads = harness.source.log.reads.count
        for _ in 0..<20 {
            let error = await harness.answer(harness.ask(0..<1, of: file))
            #expect(error?.code == .io && error?.cause.contains("no connection") == true)
        }
        #expect(harness.source.log.reads.count == reads)
        try await until("probes") { harness.source.log.probes > 3 }
        harness.source.comeBack()
        try await until("it is noticed without a read") { !harness.engine.remoteHealth.isDown }
        #expect(harness.source.log.reads.count == reads)
        #expect(await harness.answer(harness.ask(0..<8, of: file)) == nil)
        #expect(destination.isRight(EngineHarness.bytes(0..<8)))
        let probes = harness.source.log.probes
        try? await Task.sleep(for: .milliseconds(30))
        #expect(harness.source.log.probes == probes, "nobody probes what is there")
    }

    @Test func `with block, reads wait until it is back, and none of them has failed`() async throws {
        let harness = harness(.block)
        let files = (0..<100).map { _ in harness.file(granules: 8) }
        let waiters = files.map { harness.ask(0..<8, of: $0.file) }
        try await until("the outage is known") { harness.engine.remoteHealth.isDown }
        try await until("probes") { harness.source.log.probes > 3 && harness.source.log.running == 0 }
        let reads = harness.source.log.reads.count
        let late = harness.ask(0..<8, of: files[0].file)
        try await until("more probes") { harness.source.log.probes > 6 }
        #expect(harness.answered == 0 && harness.source.log.reads.count == reads)
        harness.source.comeBack()
        for waiter in waiters + [late] { #expect(await harness.answer(waiter) == nil) }
        for file in files { #expect(file.destination.isRight(EngineHarness.bytes(0..<8))) }
        #expect(files.allSatisfy { $0.destination.state.withLock(\.errors).isEmpty })
    }

    @Test func `who waits gives up at the deadline, is told why, and the file remembers it`() async throws {
        let harness = harness(.block)
        let (file, destination) = harness.file(granules: 8)
        let waiter = harness.ask(0..<1, of: file)
        try await until("the outage is known") { harness.engine.remoteHealth.isDown }
        harness.expire(after: 61)
        let error = await harness.answer(waiter)
        #expect(error?.reason == .deadline && error?.cause.contains("no connection") == true)
        try await until("the note") { destination.state.withLock(\.errors) == [error] }
        try await until("peace") { file.isIdle }
    }

    @Test func `a shutdown ends the waiting, and the probes`() async throws {
        let harness = harness(.block)
        let (file, _) = harness.file(granules: 8)
        let waiter = harness.ask(0..<8, of: file)
        try await until("the outage is known") { harness.engine.remoteHealth.isDown }
        harness.engine.shutDown()
        #expect(await harness.answer(waiter)?.reason == .shutdown)
        try await until("peace") { file.isIdle }
        try? await Task.sleep(for: .milliseconds(20))
        let probes = harness.source.log.probes
        try? await Task.sleep(for: .milliseconds(50))
        #expect(harness.source.log.probes == probes)
    }

    @Test func `a probe that hangs is given up, and the next one finds the remote`() async throws {
        let harness = harness(.error)
        harness.source.behaviour.withLock { $0.probesHang = true }
        let (file, _) = harness.file(granules: 1)
        #expect(await harness.answer(harness.ask(0..<1, of: file)) == outage)
        try await until("probes") { harness.source.log.probes > 2 }
        harness.source.comeBack()
        try await until("the return") { !harness.engine.remoteHealth.isDown }
    }

    @Test func `answers, also bad ones, are no outage, and errors of one object open nothing`() async throws {
        let harness = harness(.error)
        harness.source.comeBack()
        let (file, _) = harness.file(granules: 1)
        for reason in [FillError.Reason.remoteGone, .remoteChanged, .remoteFailed] {
            let error = FillError(.io, reason, "an answer")
            harness.source.behaviour.withLock { $0.failure = (0, error) }
            for _ in 0..<5 { #expect(await harness.answer(harness.ask(0..<1, of: file)) == error) }
            #expect(!harness.engine.remoteHealth.isDown && harness.engine.remoteHealth.outage == nil)
        }
    }

    @Test func `what the remote has is not asked for while it is down`() async throws {
        let harness = harness(.block)
        let (file, _) = harness.file(granules: 1)
        let reader = harness.ask(0..<1, of: file)
        try await until("the outage is known") { harness.engine.remoteHealth.isDown }
        let waiter = harness.makeWaiter()
        harness.engine.lookUp(RemoteKey([97]), waiter: waiter) { _, _ in Issue.record("found") }
        #expect(await harness.answer(waiter)?.cause.contains("down") == true)
        harness.engine.cancel(reader)
        #expect(await harness.answer(reader)?.reason == .cancelled)
        try await until("peace") { file.isIdle }
    }
}
