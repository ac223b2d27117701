import Foundation
import Synchronization
import TestSupport
import Testing

@testable import HSMCore

@Suite struct FillEngineFailureTests {
    private let broken = FillError(.io, .remoteFailed, "broken")

    @Test("A cancelled waiter gets EINTR, and its fetch is cancelled when nobody else waits")
    func cancel() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, destination) = harness.file(granules: 8)
        let first = harness.ask(0..<4, of: file)
        let second = harness.ask(0..<4, of: file)
        try await until("a read") { harness.source.log.running == 1 }
        harness.engine.cancel(first)
        #expect(await harness.answer(first)?.code == .interrupted)
        #expect(harness.source.log.running == 1 && harness.answers(to: second).isEmpty)
        harness.engine.cancel(second)
        #expect(await harness.answer(second)?.reason == .cancelled)
        try await until("the read to end") { harness.source.log.running == 0 && file.isIdle }
        #expect(destination.state.withLock { $0.errors.isEmpty }, "a cancelled fetch is no failure")
        #expect(harness.counter("cancelled") == 2 && harness.counter("errors") == 0)
        harness.engine.cancel(first)
        #expect(harness.answers(to: first).count == 1)
    }

    @Test("A waiter cancelled before its request is refused when the request comes")
    func cancelEarly() async throws {
        let harness = EngineHarness()
        let (file, _) = harness.file(granules: 1)
        let waiter = harness.makeWaiter()
        harness.engine.cancel(waiter)
        #expect(harness.answers(to: waiter).isEmpty)
        harness.engine.ensureResident(0..<1, of: file, waiter: waiter)
        #expect(await harness.answer(waiter)?.code == .interrupted)
        #expect(harness.source.log.reads.isEmpty && harness.engine.waiting == 0)
    }

    @Test("Cancels and requests that race leave no answer out, no double one, and no fetch behind")
    func cancelRace() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let files = (0..<4).map { _ in harness.file(granules: 8) }
        await withTaskGroup { group in
            for index in 0..<400 {
                let waiter = harness.makeWaiter()
                let file = files[index % 4].file
                group.addTask {
                    harness.engine.ensureResident(EngineHarness.bytes(index % 7..<8), of: file, waiter: waiter)
                }
                group.addTask { harness.engine.cancel(waiter) }
                group.addTask { #expect(await harness.answer(waiter)?.code == .interrupted) }
            }
        }
        // The remote is still held: only cancelling ends its reads.
        try await until("peace") { files.allSatisfy { $0.file.isIdle } && harness.source.log.running == 0 }
        #expect(harness.engine.waiting == 0)
    }

    @Test("A task that waits ends as soon as it is cancelled, whenever that is, and leaves no fetch behind")
    func cancelledTask() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, _) = harness.file(granules: 8)
        let range = EngineHarness.bytes(0..<8)
        for round in 0..<200 {
            let task = Task { () -> FillError? in
                do throws(FillError) {
                    try await harness.engine.waitForResidence(of: range, in: file, priority: .background)
                    return nil
                } catch { return error }
            }
            if round % 2 == 0 { try await until("a request") { harness.engine.waiting > 0 } }
            task.cancel()
            #expect(await task.value?.reason == .cancelled)
        }
        try await until("peace") { file.isIdle && harness.source.log.running == 0 }
        #expect(harness.engine.waiting == 0)
    }

    @Test("A waiter that gives up between the decision to fetch for it and the fetch leaves no fetch behind")
    func cancelBeforeStart() async throws {
        let harness = EngineHarness(fetchGranules: 8)
        harness.source.behaviour.withLock { $0.failure = (0, broken) }
        let (file, _) = harness.file(granules: 8)
        let second = harness.makeWaiter()
        // The error of the first waiter comes together with the decision to fetch again for the second, and is told
        // first.
        let first = harness.engine.makeWaiter { _ in
            harness.source.hold(true)
            harness.engine.cancel(second)
        }
        harness.source.hold(true)
        harness.engine.ensureResident(EngineHarness.bytes(0..<8), of: file, waiter: first)
        harness.engine.ensureResident(EngineHarness.bytes(5..<6), of: file, waiter: second)
        harness.source.hold(false)
        #expect(await harness.answer(second)?.code == .interrupted)
        try await until("peace") { file.isIdle && harness.source.log.running == 0 }
    }

    @Test("A request past its deadline fails with EIO, and others wait on")
    func deadline() async throws {
        var configuration = FillEngine.Configuration()
        configuration.deadline = .seconds(100)
        let harness = EngineHarness(.init(isHeld: true), configuration)
        let (file, _) = harness.file(granules: 8)
        let early = harness.ask(0..<1, of: file)
        harness.expire(after: 99)
        #expect(harness.answers(to: early).isEmpty)
        let late = harness.ask(0..<1, of: file)
        harness.expire(after: 101)
        #expect(harness.answers(to: early).count == 1, "at once, on the thread that looks")
        let error = await harness.answer(early)
        #expect(error?.code == .io && error?.reason == .deadline)
        harness.engine.expire()
        #expect(harness.answers(to: late).isEmpty)
        harness.source.hold(false)
        #expect(await harness.answer(late) == nil)
    }

    @Test(
        "The deadline begins anew whenever something of the range comes, up to the longest wait",
        arguments: [false, true])
    func progress(isBounded: Bool) async throws {
        var configuration = FillEngine.Configuration()
        configuration.deadline = .seconds(100)
        configuration.maxWait = isBounded ? .seconds(250) : nil
        let harness = EngineHarness(.init(), configuration)
        let (file, destination) = harness.file(granules: 8)
        harness.source.setBarrier(EngineHarness.bytes(2..<3).lowerBound)
        let waiter = harness.ask(0..<8, of: file)
        func expire(after seconds: Double) -> Bool {
            harness.expire(after: seconds)
            return !harness.answers(to: waiter).isEmpty
        }
        try await until("all but two") { destination.state.withLock(\.writes.count) == 6 }
        #expect(!expire(after: 90))
        harness.source.setBarrier(EngineHarness.bytes(3..<4).lowerBound)
        try await until("another") { destination.state.withLock(\.writes.count) == 7 }
        #expect(!expire(after: 180))
        if isBounded {
            harness.source.setBarrier(EngineHarness.bytes(3..<4).lowerBound + 500)
            #expect(expire(after: 251))
            #expect(await harness.answer(waiter)?.reason == .deadline)
        } else {
            #expect(expire(after: 240))
            #expect(await harness.answer(waiter)?.cause.contains("no content arrived") == true)
        }
        harness.source.setBarrier(nil)
        try await until("peace") { file.isIdle && harness.source.log.running == 0 }
    }

    @Test("What comes of other parts of the file is no progress of a request")
    func otherParts() async throws {
        var configuration = FillEngine.Configuration()
        configuration.deadline = .seconds(100)
        let harness = EngineHarness(fetchGranules: 1, .init(), configuration)
        let (file, _) = harness.file(granules: 8)
        harness.source.setBarrier(EngineHarness.bytes(2..<3).lowerBound)
        let stuck = harness.ask(2..<3, of: file)
        harness.expire(after: 90)
        #expect(await harness.answer(harness.ask(4..<8, of: file)) == nil)
        harness.expire(after: 101)
        #expect(await harness.answer(stuck)?.reason == .deadline)
        try await until("peace") { file.isIdle && harness.source.log.running == 0 }
    }

    @Test("Deadlines, cancels and the shutdown wait for no file's lock", arguments: ["deadline", "cancel", "shutdown"])
    func lockedFile(end: String) async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, _) = harness.file(granules: 8)
        let waiters = (0..<100).map { harness.ask($0 % 8..<8, of: file) }
        try await until("a read") { harness.source.log.running > 0 }
        let letsGo = Mutex(false)
        let isLocked = Mutex(false)
        Thread.detachNewThread {
            file.state.withLockedValue { _ in
                isLocked.withLock { $0 = true }
                while !letsGo.withLock({ $0 }) { usleep(1000) }
            }
        }
        try await until("the lock") { isLocked.withLock { $0 } }
        switch end {
        case "deadline": harness.expire(after: 61)
        case "cancel": for waiter in waiters { harness.engine.cancel(waiter) }
        default: harness.engine.shutDown()
        }
        let unanswered = waiters.filter { harness.answers(to: $0).count != 1 }
        #expect(unanswered.isEmpty && harness.engine.waiting == 0, "while the lock is held")
        letsGo.withLock { $0 = true }
        try await until("the file to hear of it") { file.isIdle && harness.source.log.running == 0 }
    }

    @Test("An exclusive write whose caller gave up while it was granted is ended, and keeps nobody waiting")
    func cancelledWrite() async throws {
        for _ in 0..<200 {
            let harness = EngineHarness(.init(isHeld: true))
            let (file, _) = harness.file(granules: 2)
            let reader = harness.ask(0..<1, of: file)
            try await until("a read") { harness.source.log.running == 1 }
            let write = harness.makeWaiter()
            harness.engine.beginExclusiveWrite(0..<1, of: file, waiter: write)
            async let end: Void = { harness.source.hold(false) }()
            harness.engine.cancel(write)
            await end
            // Whoever was granted it ends it; here that is nobody when the cancel came first.
            if await harness.answer(write) == nil { harness.engine.endExclusiveWrite(write, of: file, present: 0..<0) }
            #expect(await harness.answer(reader) == nil)
            #expect(await harness.answer(harness.ask(0..<2, of: file)) == nil)
            try await until("peace") { file.isIdle }
        }
    }

    @Test("Shutting down answers everyone, cancels every fetch, and refuses what comes after")
    func shutDown() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let files = (0..<10).map { _ in harness.file(granules: 8) }
        let waiters = files.flatMap { pair in (0..<10).map { _ in harness.ask(0..<8, of: pair.file) } }
        let write = harness.makeWaiter()
        harness.engine.beginExclusiveWrite(0..<2, of: files[0].file, waiter: write)
        try await until("reads") { harness.source.log.running == 20 }
        harness.engine.shutDown()
        for waiter in waiters + [write] { #expect(await harness.answer(waiter)?.reason == .shutdown) }
        try await until("peace") { files.allSatisfy { $0.file.isIdle } && harness.source.log.running == 0 }
        #expect(await harness.answer(harness.ask(0..<1, of: files[0].file))?.reason == .shutdown)
        #expect(harness.engine.waiting == 0)
    }

    @Test("After the shutdown the read-ahead keeps no read at the remote")
    func readAheadAfterShutDown() async throws {
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 8 * EngineHarness.granuleSize
        let harness = EngineHarness(.init(isHeld: true), configuration)
        let (file, _) = harness.file(granules: 16)
        harness.engine.shutDown()
        for granule in 0..<3 { _ = harness.engine.isResident(EngineHarness.bytes(granule..<granule + 1), of: file) }
        try await until("peace") { file.isIdle && harness.source.log.running == 0 }
    }

    @Test("A shutdown that races with requests leaves no read at the remote behind")
    func shutDownRace() async throws {
        for _ in 0..<50 {
            let harness = EngineHarness(fetchGranules: 1, .init(isHeld: true))
            let (file, _) = harness.file(granules: 16)
            await withTaskGroup { group in
                for index in 0..<8 {
                    group.addTask { #expect(await harness.answer(harness.ask(index..<16, of: file)) != nil) }
                }
                group.addTask { harness.engine.shutDown() }
            }
            try await until("peace") { file.isIdle && harness.source.log.running == 0 }
        }
    }

    @Test("A drained engine refuses fills for a while, and then serves again")
    func refuse() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, _) = harness.file(granules: 8)
        let waiter = harness.ask(0..<4, of: file)
        harness.engine.refuse(for: .seconds(1000))
        #expect(await harness.answer(waiter)?.reason == .shutdown)
        #expect(await harness.answer(harness.ask(0..<4, of: file))?.reason == .shutdown)
        harness.source.hold(false)
        harness.engine.refuse(for: .zero)
        #expect(await harness.answer(harness.ask(0..<4, of: file)) == nil)
    }

    @Test("After the shutdown local changes are still let through")
    func writeAfterShutDown() async throws {
        let harness = EngineHarness()
        let (file, _) = harness.file(granules: 8)
        harness.engine.shutDown()
        let write = harness.makeWaiter()
        harness.engine.beginExclusiveWrite(0..<2, of: file, waiter: write)
        #expect(await harness.answer(write) == nil)
        harness.engine.endExclusiveWrite(write, of: file, present: 0..<2)
        #expect(file.present.runs() == [0..<2])
    }

    @Test("An error at one granule fails its waiters with the cause, and nobody else")
    func oneGranule() async throws {
        let harness = EngineHarness(fetchGranules: 8)
        harness.source.behaviour.withLock { $0.failure = (5 * EngineHarness.granuleSize + 7, broken) }
        let (file, destination) = harness.file(granules: 8)
        let other = harness.file(granules: 2)
        let all = harness.ask(0..<8, of: file)
        let good = harness.ask(6..<8, of: file)
        let bad = harness.ask(5..<6, of: file)
        #expect(await harness.answer(all) == broken)
        #expect(await harness.answer(bad) == broken)
        #expect(await harness.answer(good) == nil)
        #expect(await harness.answer(harness.ask(0..<5, of: file)) == nil)
        #expect(await harness.answer(harness.ask(0..<2, of: other.file)) == nil)
        try await until("peace") { file.isIdle }
        #expect(file.present.runs() == [0..<5, 6..<8])
        #expect(destination.state.withLock { Set($0.errors) } == [broken])
    }

    @Test("After the error is gone the granule is fetched again")
    func recovery() async throws {
        let harness = EngineHarness()
        harness.source.behaviour.withLock { $0.failure = (0, broken) }
        let (file, destination) = harness.file(granules: 2)
        #expect(await harness.answer(harness.ask(0..<2, of: file)) == broken)
        harness.source.behaviour.withLock { $0.failure = nil }
        #expect(await harness.answer(harness.ask(0..<2, of: file)) == nil)
        #expect(destination.isRight(0..<2 * EngineHarness.granuleSize))
    }

    @Test("A remote that sends too little fails the rest, and keeps what came whole", arguments: [1, 4096, 5000])
    func short(missing: Int) async throws {
        let harness = EngineHarness(.init(missing: missing))
        let (file, destination) = harness.file(granules: 4)
        let error = await harness.answer(harness.ask(0..<4, of: file))
        #expect(error?.code == .io && error?.reason == .remoteFailed)
        let whole = (4 * EngineHarness.granuleSize - missing) / EngineHarness.granuleSize
        #expect(file.present.runs() == [0..<whole])
        #expect(destination.isRight(EngineHarness.bytes(0..<whole)))
    }

    @Test("A remote that sends too much is an error, and nothing is written behind the end", arguments: [1, 4096])
    func long(extra: Int) async throws {
        let harness = EngineHarness(.init(extra: extra))
        let (file, destination) = harness.file(granules: 4, tail: 96)
        _ = await harness.answer(harness.ask(0..<4, of: file))
        try await until("the error") { destination.state.withLock { $0.errors.count } == 1 }
        #expect(destination.state.withLock(\.errors).first?.reason == .remoteFailed)
        #expect(destination.state.withLock(\.content).count == file.layout.limit)
    }

    @Test("A refused write reaches the waiter as what it is, and leaves the granule absent")
    func lowerFailure() async throws {
        let harness = EngineHarness(fetchGranules: 1)
        let (file, destination) = harness.file(granules: 4)
        destination.state.withLock { $0.refused = 2 }
        #expect(await harness.answer(harness.ask(2..<3, of: file)) == MemoryDestination.refusal)
        #expect(await harness.answer(harness.ask(0..<2, of: file)) == nil)
        #expect(file.present.runs() == [0..<2])
        destination.state.withLock { $0.refused = nil }
        #expect(await harness.answer(harness.ask(0..<4, of: file)) == nil)
    }

    @Test("An exclusive write keeps fetches away until it ends, and what it wrote is not fetched")
    func exclusiveWrite() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, destination) = harness.file(granules: 8)
        let reader = harness.ask(0..<2, of: file)
        let write = harness.makeWaiter()
        harness.engine.beginExclusiveWrite(1..<4, of: file, waiter: write)
        let blocked = harness.ask(3..<5, of: file)
        #expect(harness.answers(to: write).isEmpty)
        harness.source.hold(false)
        #expect(await harness.answer(reader) == nil)
        #expect(await harness.answer(write) == nil)
        #expect(harness.answers(to: blocked).isEmpty)
        harness.engine.endExclusiveWrite(write, of: file, present: 1..<4)
        #expect(await harness.answer(blocked) == nil)
        try await until("peace") { file.isIdle }
        #expect(destination.state.withLock { Set($0.writes.keys) } == [0, 1, 4])
    }

    @Test(
        "An exclusive write that cancels fetches does not wait for a held remote, and truncation ends the wait behind the cut"
    )
    func truncation() async throws {
        let harness = EngineHarness(.init(isHeld: true))
        let (file, _) = harness.file(granules: 8)
        let reader = harness.ask(2..<6, of: file)
        let write = harness.makeWaiter()
        harness.engine.beginExclusiveWrite(0..<Int.max, of: file, cancelFetches: true, waiter: write)
        #expect(await harness.answer(write) == nil)
        harness.engine.truncated(file, to: 0)
        #expect(await harness.answer(reader) == nil)
        harness.engine.endExclusiveWrite(write, of: file, present: 0..<0)
        #expect(file.isComplete && file.isIdle)
    }
}
