import HSMCore
import Synchronization
import TestSupport
import Testing

/// An engine with one file in memory behind it, and a book of the answers.
final class EngineHarness: Sendable {
    static let granuleSize = 4096
    let source: FakeRemote
    let engine: FillEngine
    /// How far the engine's time is ahead of the clock.
    private let ahead: Ahead
    private let pages = Mutex<[FillEngine.Waiter: Page]>([:])

    private final class Ahead: Sendable {
        let duration = Mutex(Duration.zero)
    }

    /// The answers to one waiter.
    private final class Page: Sendable {
        let answers = Mutex<[FillError?]>([])
    }

    init(
        fetchGranules: Int = 4, _ behaviour: FakeRemote.Behaviour = .init(),
        _ configuration: FillEngine.Configuration = .prompt
    ) {
        source = FakeRemote(fetchUnit: fetchGranules * Self.granuleSize, behaviour)
        let ahead = Ahead()
        self.ahead = ahead
        var used = configuration
        used.now = { .now + ahead.duration.withLock { $0 } }
        engine = FillEngine(source: source, configuration: used, pool: globalConcurrentExecutor)
    }

    func file(
        granules: Int, tail: Int = 0, present: Range<Int> = 0..<0, check: FillState.Check = .none
    ) -> (file: FillFile, destination: MemoryDestination) {
        let layout = GranuleLayout(granuleSize: Self.granuleSize, limit: granules * Self.granuleSize - tail)
        let destination = MemoryDestination(layout)
        let object = RemoteObject(key: .init([97]), version: .init([49]), size: layout.limit)
        let file = FillFile(
            object: object, destination: destination, layout: layout, present: GranuleSet(present), check: check,
            engine: engine)
        return (file, destination)
    }

    static func bytes(_ granules: Range<Int>) -> Range<Int> {
        granules.lowerBound * granuleSize..<granules.upperBound * granuleSize
    }

    /// Lets `seconds` since the beginning pass at once, and the engine look at its deadlines.
    func expire(after seconds: Double) {
        ahead.duration.withLock { $0 = .seconds(seconds) }
        engine.expire()
    }

    func makeWaiter() -> FillEngine.Waiter {
        let page = Page()
        let waiter = engine.makeWaiter { error in page.answers.withLock { $0.append(error) } }
        pages.withLock { $0[waiter] = page }
        return waiter
    }

    @discardableResult
    func ask(
        _ granules: Range<Int>, of file: FillFile, _ priority: FillState.Priority = .demand, user: FillEngine.User = 0
    ) -> FillEngine.Waiter {
        let waiter = makeWaiter()
        engine.ensureResident(Self.bytes(granules), of: file, priority: priority, user: user, waiter: waiter)
        return waiter
    }

    func answers(to waiter: FillEngine.Waiter) -> [FillError?] {
        pages.withLock { $0[waiter] }?.answers.withLock { $0 } ?? []
    }

    var answered: Int {
        pages.withLock { Array($0.values) }.reduce(0) { $0 + $1.answers.withLock(\.count) }
    }

    func counter(_ name: String) -> Int { engine.counters.snapshot.first { $0.name == name }?.value ?? -1 }

    /// The one answer to a waiter; an issue when there is none, or more than one.
    func answer(_ waiter: FillEngine.Waiter) async -> FillError? {
        do { try await until("an answer to \(waiter)") { !answers(to: waiter).isEmpty } } catch { Issue.record(error) }
        let all = answers(to: waiter)
        #expect(all.count == 1)
        return all.first ?? FillError(.io, .deadline, "no answer")
    }
}
