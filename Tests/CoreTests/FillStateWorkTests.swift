import Foundation
import Testing

@testable import HSMCore

/// How much work the state does for many who wait: n log n, not more. Counted in steps, never in time.
@Suite struct FillStateWorkTests {
    /// A driver that checks nothing, so that it takes no time itself.
    private final class File {
        var state: FillState
        var fetches: [FillState.ID: Range<Int>] = [:]
        var finished = 0
        var failed = 0
        private let lastID = FillStateModel.Counter()

        init(granules: Int, fetchGranules: Int = 16) {
            let lastID = lastID
            state = FillState(
                layout: GranuleLayout(granuleSize: 1, limit: granules), present: GranuleSet(),
                limits: .init(fetchGranules: fetchGranules, readAheadGranules: 0), nextID: { lastID.next() })
        }

        @discardableResult
        func wait(_ granules: Range<Int>, _ priority: FillState.Priority = .demand) -> FillState.ID {
            let id = lastID.next()
            step { _ = $0.wait(id, for: granules, priority, &$1) }
            return id
        }

        func step(_ body: (inout FillState, inout [FillState.Action]) -> Void) {
            var actions: [FillState.Action] = []
            body(&state, &actions)
            for action in actions {
                switch action {
                case .start(let id, let granules, _, _): fetches[id] = granules
                case .complete(_, let error): if error == nil { finished += 1 } else { failed += 1 }
                case .promote, .cancel, .grant, .check: break
                }
            }
        }

        /// Lets everything come, granule by granule.
        func deliverAll() {
            while let (id, granules) = fetches.popFirst() {
                for granule in granules { step { $0.filled(id, granule..<granule + 1, &$1) } }
            }
        }

        func failEverything() {
            while let (id, _) = fetches.popFirst() {
                step { $0.fetchEnded(id, error: FillError(.io, .remoteFailed, "broken"), &$1) }
            }
        }

        func giveUp(_ ids: [FillState.ID]) {
            for id in ids { step { $0.cancel(waiter: id, &$1) } }
        }
    }

    private func bound(_ count: Int) -> Int { Int(60 * Double(count) * log2(Double(count))) }

    /// Who waits for what of a file of 16 granules each.
    enum Shape: String, CaseIterable {
        case apart, same, whole, suffixes, prefixes, nested

        func range(_ index: Int, of count: Int) -> Range<Int> {
            let end = 16 * count
            return switch self {
            case .apart: 16 * index..<16 * (index + 1)
            case .same: 7..<30
            case .whole: 0..<end
            case .suffixes: 16 * index..<end
            case .prefixes: 0..<16 * (index + 1)
            case .nested: 4 * index..<end - 4 * index
            }
        }
    }

    @Test("However n waiters overlap, their waits cost n log n steps", arguments: Shape.allCases)
    func waits(shape: Shape) {
        let count = 4000
        let file = File(granules: 16 * count)
        for index in 0..<count { file.wait(shape.range(index, of: count), index % 3 == 0 ? .prefetch : .demand) }
        #expect(file.state.steps < bound(count))
        file.deliverAll()
        #expect(file.finished == count && file.state.isIdle)
        // What comes is counted too: 16 granules for each.
        #expect(file.state.steps < bound(16 * count))
    }

    @Test("Giving up costs n log n steps", arguments: Shape.allCases)
    func cancel(shape: Shape) {
        let count = 4000
        let file = File(granules: 16 * count)
        let ids = (0..<count).map { file.wait(shape.range($0, of: count)) }
        let before = file.state.steps
        file.giveUp(ids.reversed())
        #expect(file.state.waiters.isEmpty && file.state.groups.isEmpty)
        #expect(file.state.steps - before < 2 * bound(count))
    }

    @Test("Asking and giving up again and again beside one who waits leaves nothing behind")
    func cycles() {
        let file = File(granules: 16 * 100)
        file.wait(0..<1600)
        for index in 0..<20_000 { file.giveUp([file.wait(16 * (index % 90)..<16 * (index % 90 + 3))]) }
        #expect(file.state.groups.entries < 200)
        #expect(file.state.steps < 60 * bound(20_000) / 10)
    }

    @Test("Errors of every fetch cost n log n steps, and reach everyone")
    func errors() {
        let count = 4000
        let file = File(granules: 16 * count)
        for index in 0..<count { file.wait(Shape.apart.range(index, of: count)) }
        file.failEverything()
        #expect(file.failed == count && file.state.isIdle)
        #expect(file.state.steps < bound(count))
    }

    @Test("n exclusive writes cost n log n steps, and are granted in order")
    func exclusiveWrites() {
        let count = 4000
        let file = File(granules: 16 * count)
        var granted = 0
        func exclusiveWrite(_ id: FillState.ID) {
            file.step { if $0.beginExclusiveWrite(id, 0..<10, cancelFetches: true, &$1) { granted += 1 } }
        }
        for index in 0..<count { exclusiveWrite(FillState.ID(1_000_000 + index)) }
        #expect(granted == 1)
        for index in 0..<count {
            file.step { $0.endExclusiveWrite(FillState.ID(1_000_000 + index), present: 0..<0, &$1) }
        }
        #expect(file.state.isIdle && file.state.steps < bound(count))
    }

    @Test("The queued fetches of a file are bounded, whoever waits, and demand comes before prefetch")
    func bounded() {
        let file = File(granules: 16_000)
        for index in 0..<500 { file.wait(16 * index..<16 * (index + 1), .prefetch) }
        #expect(file.fetches.count == 48, "a quarter is kept for demand")
        file.wait(15_000..<15_001)
        #expect(file.fetches.values.contains(15_000..<15_001))
        for index in 500..<700 { file.wait(16 * index..<16 * (index + 1)) }
        #expect(file.fetches.count == 64)
        file.deliverAll()
        #expect(file.finished == 701 && file.state.isIdle)
    }

    @Test("Of one file, each user comes to a turn")
    func users() throws {
        let model = FillStateModel(limit: 4000, fetchGranules: 1)
        for granule in 0..<200 { model.wait(granule..<granule + 1, user: 1) }
        let other = model.wait(900..<901, user: 2).id
        for _ in 0..<3 {
            let first = try #require(model.fetches.keys.min())
            model.deliver(first)
        }
        #expect(model.users.dropFirst(64).prefix(3).contains(2))
        #expect(model.outcomes.allSatisfy { $0.waiter != other })
    }
}
