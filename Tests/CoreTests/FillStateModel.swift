import Synchronization
import Testing

@testable import HSMCore

/// Drives a ``FillState`` as the engine does, and checks after every step what must always be true.
///
/// A reference type, because `#expect` takes no mutating call.
final class FillStateModel {
    typealias ID = FillState.ID

    struct RunningFetch {
        /// What is still to come.
        var granules: Range<Int>
        /// The read-ahead asked for it, or may have: it may run on when nobody waits.
        var isAhead: Bool
        var isCancelled = false
    }

    struct Outcome: Equatable {
        let waiter: ID
        let error: FillError?
    }

    static let granuleSize = 4
    private(set) var state: FillState
    private(set) var present: Set<Int>
    private(set) var fetches: [ID: RunningFetch] = [:]
    private(set) var waiters: [ID: Range<Int>] = [:]
    /// Exclusive writes by whether they are granted.
    private(set) var writes: [ID: (granules: Range<Int>, isGranted: Bool)] = [:]
    private(set) var outcomes: [Outcome] = []
    private(set) var fetchedGranules: [Int: Int] = [:]
    private(set) var starts: [Range<Int>] = []
    private(set) var users: [FillState.User] = []
    private(set) var promotions: [ID] = []
    /// What the step under way may give as an error.
    private var expected: FillError?
    /// What those wanted who gave up or failed in the step under way: fetches for nobody but them must be cancelled.
    private var gone: [Range<Int>] = []
    private let lastID = Counter()

    /// The state wants a sendable source of numbers.
    final class Counter: Sendable {
        private let value = Atomic<UInt64>(0)
        func next() -> ID { value.wrappingAdd(1, ordering: .relaxed).newValue }
    }

    init(
        limit: Int, present: Range<Int> = 0..<0, fetchGranules: Int = 4, readAhead: Int = 0, fetches: Int = 64
    ) {
        self.present = Set(present)
        var limits = FillState.Limits(fetchGranules: fetchGranules, readAheadGranules: readAhead)
        limits.fetches = fetches
        state = FillState(
            layout: GranuleLayout(granuleSize: Self.granuleSize, limit: limit), present: GranuleSet(present),
            limits: limits, nextID: { [lastID] in lastID.next() })
    }

    /// The bytes of whole granules.
    static func bytes(_ granules: Range<Int>) -> Range<Int> {
        granules.lowerBound * granuleSize..<granules.upperBound * granuleSize
    }

    // MARK: Steps

    @discardableResult
    func wait(
        _ granules: Range<Int>, _ priority: FillState.Priority = .demand, user: FillState.User = 0
    ) -> (id: ID, result: FillState.Wait) {
        let id = lastID.next()
        let missing = granules.clamped(to: 0..<state.layout.count)
        let result = step { state, actions in
            let result = state.wait(id, for: Self.bytes(granules), priority, user: user, &actions)
            if case .present = result {
                #expect(Set(missing).isSubset(of: self.present))
            } else {
                self.waiters[id] = missing
            }
            return result
        }
        return (id, result)
    }

    func promote(_ id: ID) { step { $0.promote(id, to: .demand, &$1) } }

    func read(_ granules: Range<Int>) { step { $0.noteRead(Self.bytes(granules), &$1) } }

    func cancel(_ id: ID) -> Bool {
        let waiter = waiters.removeValue(forKey: id)
        let waited = waiter != nil || writes[id].map { !$0.isGranted } ?? false
        if waited { writes[id] = nil }
        if let waiter { gone.append(waiter) }
        let result = step { $0.cancel(waiter: id, &$1) }
        #expect(result == waited)
        return result
    }

    /// The next `count` granules of a fetch arrive.
    func deliver(_ fetch: ID, _ count: Int = 1) {
        guard let rest = fetches[fetch]?.granules, !rest.isEmpty else { return }
        let whole = rest.prefix(count)
        if whole.endIndex == rest.upperBound { fetches[fetch] = nil }
        let granules = whole.startIndex..<whole.endIndex
        fetches[fetch]?.granules = granules.upperBound..<rest.upperBound
        for granule in granules {
            #expect(!present.contains(granule), "granule \(granule) was present already")
            fetchedGranules[granule, default: 0] += 1
        }
        present.formUnion(granules)
        step { $0.filled(fetch, granules, &$1) }
    }

    func end(_ fetch: ID, _ error: FillError? = nil) {
        guard let ended = fetches.removeValue(forKey: fetch) else {
            // It has delivered everything: its end changes nothing.
            let before = outcomes
            step { $0.fetchEnded(fetch, error: error, &$1) }
            #expect(outcomes == before)
            return
        }
        #expect(
            error != nil || ended.granules.isEmpty || ended.isCancelled,
            "the driver must end a short fetch with an error")
        let spared = waiters.filter { ended.isCancelled || !$0.value.contains(ended.granules.lowerBound) }
        expected = error
        step { $0.fetchEnded(fetch, error: error, &$1) }
        expected = nil
        #expect(spared.keys.allSatisfy { waiters[$0] != nil }, "an error reached someone who did not wait for it")
    }

    @discardableResult
    func beginWrite(_ granules: Range<Int>, cancelFetches: Bool = false) -> (id: ID, isGranted: Bool) {
        let id = lastID.next()
        writes[id] = (granules, false)
        let granted = step { state, actions in
            let granted = state.beginExclusiveWrite(id, granules, cancelFetches: cancelFetches, &actions)
            self.writes[id]?.isGranted = granted
            return granted
        }
        return (id, granted)
    }

    func endWrite(_ id: ID, present granules: Range<Int>) {
        writes[id] = nil
        present.formUnion(granules.clamped(to: 0..<state.layout.count))
        step { $0.endExclusiveWrite(id, present: granules, &$1) }
    }

    /// Cuts the file to `size` under the granted exclusive write `id`, and ends it.
    func truncate(to size: Int, under id: ID) {
        let count = min(state.layout.count, (size + Self.granuleSize - 1) / Self.granuleSize)
        present = present.filter { $0 < count }
        for (waiter, granules) in waiters { waiters[waiter] = granules.clamped(to: 0..<count) }
        step { $0.truncated(to: size, &$1) }
        // The front end fills the granule of the cut before it cuts.
        endWrite(id, present: min(size / Self.granuleSize, count)..<count)
    }

    func failAll(_ error: FillError) {
        expected = error
        step { $0.failAll(error, &$1) }
        expected = nil
        #expect(
            waiters.isEmpty && writes.values.allSatisfy { $0.isGranted } && fetches.values.allSatisfy { $0.isCancelled }
        )
    }

    // MARK: Checks

    private func step<Result>(_ body: (inout FillState, inout [FillState.Action]) -> Result) -> Result {
        var actions: [FillState.Action] = []
        let result = body(&state, &actions)
        for action in actions { take(action) }
        check()
        return result
    }

    private func take(_ action: FillState.Action) {
        switch action {
        case .start(let id, let granules, let priority, let user):
            #expect(!granules.isEmpty && granules.upperBound <= state.layout.count)
            #expect(present.isDisjoint(with: granules), "\(granules) is partly present")
            #expect(!fetches.values.contains { $0.granules.overlaps(granules) }, "\(granules) is fetched twice at once")
            #expect(!writes.values.contains { $0.granules.overlaps(granules) }, "\(granules) is reserved")
            fetches[id] = RunningFetch(granules: granules, isAhead: priority == .prefetch)
            starts.append(granules)
            users.append(user)
            #expect(fetches.values.count { !$0.isCancelled } <= state.limits.fetches)
        case .promote(let id, _):
            #expect(fetches[id] != nil)
            fetches[id]?.isAhead = true
            promotions.append(id)
        case .cancel(let id):
            #expect(fetches[id]?.isCancelled == false, "cancelled once, while it runs")
            fetches[id]?.isCancelled = true
        case .complete(let id, let error):
            finish(id, error)
        case .grant(let id): finish(id, nil)
        case .check: Issue.record("there is nothing to check")
        }
    }

    private func finish(_ id: ID, _ error: FillError?) {
        outcomes.append(Outcome(waiter: id, error: error))
        #expect(error == nil || error == expected)
        if let granules = waiters.removeValue(forKey: id) {
            #expect(error != nil || Set(granules).isSubset(of: present), "finished before its range was present")
            if error != nil { gone.append(granules) }
        } else if writes[id]?.isGranted == false {
            if error == nil { writes[id]?.isGranted = true } else { writes[id] = nil }
        } else {
            Issue.record("\(id) was finished, but does not wait")
        }
    }

    private func check() {
        #expect(state.present.count == present.count && present.allSatisfy { state.present.contains($0) })
        #expect(state.isComplete == (present.count == state.layout.count))
        #expect(state.isIdle == (fetches.isEmpty && waiters.isEmpty && writes.isEmpty))
        let granted = writes.values.filter(\.isGranted).map(\.granules)
        for (index, granules) in granted.enumerated() {
            #expect(
                !fetches.values.contains { $0.granules.overlaps(granules) },
                "a fetch overlaps a granted exclusive write")
            #expect(!granted[..<index].contains { $0.overlaps(granules) }, "two granted exclusive writes overlap")
        }
        let running = fetches.values.count { !$0.isCancelled }
        for granules in waiters.values {
            // It may be in turn for its first fetch.
            if running >= max(1, state.limits.fetches * 3 / 4) { continue }
            let held =
                fetches.values.contains { $0.granules.overlaps(granules) }
                || writes.values.contains { $0.granules.overlaps(granules) }
            #expect(held, "nothing is under way for a waiter of \(granules)")
        }
        for fetch in fetches.values where !fetch.isAhead && !fetch.isCancelled {
            guard gone.contains(where: { $0.overlaps(fetch.granules) }) else { continue }
            #expect(waiters.values.contains { $0.overlaps(fetch.granules) }, "nobody waits for \(fetch.granules)")
        }
        gone.removeAll()
    }
}
