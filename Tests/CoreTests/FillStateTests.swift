import Testing

@testable import HSMCore

@Suite struct FillStateTests {
    private let failure = FillError(.io, .remoteFailed, "broken")
    private let stop = FillError(.io, .shutdown, "stopped")

    private func only(_ model: FillStateModel) throws -> FillState.ID {
        try #require(model.fetches.count == 1)
        return try #require(model.fetches.keys.first)
    }

    @Test("A present range needs nobody to wait")
    func present() {
        let model = FillStateModel(limit: 40, present: 2..<5)
        #expect(model.wait(2..<5).result == .present)
        #expect(model.wait(10..<20).result == .present, "behind the end nothing is missing")
        #expect(model.starts.isEmpty && model.state.isIdle)
    }

    @Test("A fetch is cut at the fetch unit, at what is present, and at what others fetch")
    func cuts() {
        let model = FillStateModel(limit: 80, present: 6..<7)
        model.wait(9..<10)
        model.wait(0..<12)
        #expect(model.starts == [9..<10, 0..<4, 4..<6, 7..<9, 10..<12])
    }

    @Test("One waiter keeps a bounded number of fetches under way, and goes on when one ends")
    func bounded() throws {
        let model = FillStateModel(limit: 400, fetchGranules: 1)
        model.wait(0..<20)
        #expect(model.starts.count == 8)
        let first = try #require(model.fetches.first { $0.value.granules == 0..<1 }?.key)
        model.deliver(first)
        model.end(first)
        #expect(model.starts.count == 9)
    }

    @Test("When something came of a part of a file is known of that part, without the file's lock")
    func progress() {
        for granules in [1, 8, 64, 65, 1000, 100_000] {
            let progress = FillProgress(granules: granules)
            #expect(progress.last(of: 0..<granules) == 0)
            progress.arrived(granules - 1..<granules, at: 7)
            #expect(progress.last(of: 0..<granules) == 7 && progress.last(of: granules - 1..<granules) == 7)
            if granules > 1 {
                #expect(progress.last(of: 0..<1) == 0)
                progress.arrived(0..<granules, at: 9)
                #expect(progress.last(of: 0..<1) == 9)
            }
            #expect(progress.last(of: 0..<0) == 0)
        }
    }

    @Test("64 waiters of one range share one fetch, and each is finished when it is there")
    func singleFlight() throws {
        let model = FillStateModel(limit: 16)
        #expect(model.wait(0..<4).result == .missed)
        for _ in 1..<64 { #expect(model.wait(0..<4).result == .joined) }
        let fetch = try only(model)
        model.deliver(fetch, 3)
        #expect(model.outcomes.isEmpty)
        model.deliver(fetch)
        #expect(model.outcomes.count == 64 && model.outcomes.allSatisfy { $0.error == nil })
        #expect(model.state.isIdle && model.state.isComplete, "with the last granule the fetch is over")
        model.end(fetch, failure)
        #expect(model.outcomes.count == 64)
    }

    @Test("Demand for what the read-ahead fetches promotes it")
    func promotion() throws {
        let model = FillStateModel(limit: 400, fetchGranules: 8, readAhead: 32)
        model.wait(20..<21, .background)
        let fetch = try only(model)
        model.wait(20..<21)
        model.wait(20..<21)
        #expect(model.promotions == [fetch])
    }

    @Test("Cancelling a waiter cancels only fetches that nobody else waits for")
    func cancel() throws {
        let model = FillStateModel(limit: 400)
        let first = model.wait(0..<4).id
        let second = model.wait(2..<6).id
        #expect(model.cancel(first))
        #expect(model.fetches.values.allSatisfy { !$0.isCancelled })
        #expect(!model.cancel(first))
        #expect(model.cancel(second))
        #expect(model.fetches.values.allSatisfy { $0.isCancelled })
        for fetch in Array(model.fetches.keys) { model.end(fetch, failure) }
        #expect(model.outcomes.isEmpty && model.state.isIdle)
    }

    @Test("Who comes while a cancelled fetch still ends is served by the next one, not failed with it")
    func afterCancel() throws {
        let model = FillStateModel(limit: 400)
        #expect(model.cancel(model.wait(0..<2).id))
        let cancelled = try only(model)
        model.wait(0..<2)
        model.end(cancelled, failure)
        #expect(model.outcomes.isEmpty)
        model.deliver(try only(model), 2)
        #expect(model.outcomes.map(\.error) == [nil])
    }

    @Test("A failed granule fails those who wait for it, and nobody else")
    func failedGranule() throws {
        let model = FillStateModel(limit: 400, fetchGranules: 8)
        let all = model.wait(0..<8).id
        let bad = model.wait(3..<4).id
        let good = model.wait(5..<7).id
        let fetch = try only(model)
        model.deliver(fetch, 3)
        model.end(fetch, failure)
        #expect(Set(model.outcomes.map(\.waiter)) == [all, bad])
        #expect(model.outcomes.allSatisfy { $0.error == failure })
        #expect(model.starts.last == 5..<7)
        model.deliver(try only(model), 2)
        #expect(model.outcomes.last == .init(waiter: good, error: nil))
    }

    @Test("The other fetches of a waiter that failed are cancelled")
    func failureCancelsRest() throws {
        let model = FillStateModel(limit: 400, fetchGranules: 2)
        model.wait(0..<6)
        let first = try #require(model.fetches.first { $0.value.granules == 0..<2 }?.key)
        model.end(first, failure)
        #expect(model.fetches.count == 2 && model.fetches.values.allSatisfy { $0.isCancelled })
    }

    @Test("An exclusive write waits for the fetches in its range, and waiters of its range wait for it")
    func exclusiveWrite() throws {
        let model = FillStateModel(limit: 400)
        model.wait(0..<2)
        let write = model.beginWrite(1..<4)
        #expect(!write.isGranted)
        let waiter = model.wait(2..<3)
        #expect(waiter.result == .joined && model.fetches.count == 1)
        let fetch = try only(model)
        model.deliver(fetch, 2)
        model.end(fetch)
        #expect(model.writes[write.id]?.isGranted == true)
        model.endWrite(write.id, present: 1..<4)
        #expect(model.outcomes.last == .init(waiter: waiter.id, error: nil))
        #expect(model.starts == [0..<2], "what was written locally is not fetched")
        #expect(model.state.isIdle)
    }

    @Test("What an exclusive write did not make present is fetched after it for those who wait")
    func emptyRelease() throws {
        let model = FillStateModel(limit: 400)
        let write = model.beginWrite(0..<4)
        #expect(write.isGranted)
        model.wait(1..<2)
        #expect(model.starts.isEmpty)
        model.endWrite(write.id, present: 0..<0)
        #expect(model.starts == [1..<2])
    }

    @Test("Overlapping exclusive writes are granted in order of arrival")
    func writeOrder() {
        let model = FillStateModel(limit: 400)
        let first = model.beginWrite(0..<4)
        let second = model.beginWrite(3..<8)
        let third = model.beginWrite(7..<9)
        let apart = model.beginWrite(20..<21)
        #expect(first.isGranted && !second.isGranted && !third.isGranted && apart.isGranted)
        model.endWrite(first.id, present: 0..<0)
        #expect(model.outcomes.map(\.waiter) == [second.id])
        model.endWrite(second.id, present: 3..<8)
        #expect(model.outcomes.map(\.waiter) == [second.id, third.id])
    }

    @Test("An exclusive write that cancels fetches is granted when they end, and their waiters wait on")
    func cancellingWrite() throws {
        let model = FillStateModel(limit: 400)
        let waiter = model.wait(0..<2)
        let write = model.beginWrite(0..<Int.max, cancelFetches: true)
        let fetch = try only(model)
        #expect(model.fetches[fetch]?.isCancelled == true && !write.isGranted)
        model.end(fetch, failure)
        #expect(model.writes[write.id]?.isGranted == true)
        model.truncate(to: 0, under: write.id)
        #expect(model.outcomes.last == .init(waiter: waiter.id, error: nil), "behind the new end nothing is missing")
        #expect(model.state.isIdle && model.state.isComplete)
    }

    @Test("An exclusive write that is given up lets those behind it go on")
    func cancelledWrite() throws {
        let model = FillStateModel(limit: 400)
        model.wait(0..<1)
        let write = model.beginWrite(0..<4)
        model.wait(2..<3)
        #expect(model.starts == [0..<1])
        #expect(model.cancel(write.id))
        #expect(model.starts == [0..<1, 2..<3])
    }

    @Test("Truncation ends the wait for what was cut off, and keeps the wait for the rest")
    func truncation() throws {
        let model = FillStateModel(limit: 80, fetchGranules: 1)
        let write = model.beginWrite(10..<Int.max)
        let waiter = model.wait(9..<12)
        #expect(model.starts == [9..<10])
        model.truncate(to: 41, under: write.id)
        #expect(model.outcomes.isEmpty && model.state.layout.count == 11)
        let fetch = try only(model)
        model.deliver(fetch)
        model.end(fetch)
        #expect(model.outcomes == [.init(waiter: waiter.id, error: nil)])
    }

    @Test("Failing all answers everyone once, leaves granted exclusive writes alone, and cancels every fetch")
    func failAll() throws {
        let model = FillStateModel(limit: 400)
        let granted = model.beginWrite(20..<22)
        model.wait(0..<2)
        model.wait(20..<21)
        model.beginWrite(0..<1)
        model.failAll(stop)
        #expect(model.outcomes.count == 3 && model.outcomes.allSatisfy { $0.error == stop })
        model.end(try only(model), failure)
        model.endWrite(granted.id, present: 20..<22)
        #expect(model.state.isIdle)
    }
}
