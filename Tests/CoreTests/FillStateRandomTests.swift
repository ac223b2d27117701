import TestSupport
import Testing

@testable import HSMCore

@Suite struct FillStateRandomTests {
    private static let granules = 40
    private let failure = FillError(.io, .remoteFailed, "broken")

    @Test("Whatever happens in whatever order: one fetch a granule, one answer a waiter, and peace at the end")
    func model() {
        var random = SeededRandom()
        for _ in 0..<150 {
            let limit = Self.granules * FillStateModel.granuleSize - Int.random(in: 0..<4, using: &random)
            let model = FillStateModel(
                limit: limit, present: random.range(below: Self.granules, most: 6),
                fetchGranules: Int.random(in: 1...9, using: &random), readAhead: Int.random(in: 0...16, using: &random),
                fetches: Int.random(in: 1...24, using: &random))
            for _ in 0..<120 { step(model, &random) }
            settle(model, &random)
            #expect(model.state.isIdle)
            #expect(Set(model.outcomes.map(\.waiter)).count == model.outcomes.count, "somebody was answered twice")
        }
    }

    private func step(_ model: FillStateModel, _ random: inout SeededRandom) {
        let count = model.state.layout.count
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<20:
            let priorities: [FillState.Priority] = [.demand, .demand, .prefetch, .background]
            model.wait(
                random.range(below: Self.granules, most: 8), priorities.randomElement(using: &random) ?? .demand,
                user: UInt32.random(in: 0..<3, using: &random))
        case 20..<25:
            if let id = model.waiters.keys.sorted().randomElement(using: &random) { model.promote(id) }
        case 25..<35: model.read(random.range(below: Self.granules, most: 3))
        case 35..<43: cancelOne(model, &random)
        case 43..<75: advanceFetch(model, &random)
        case 75..<80: endFetch(model, &random)
        case 80..<88:
            let range = random.range(below: Self.granules, most: 6)
            if !range.isEmpty { model.beginWrite(range, cancelFetches: Bool.random(using: &random)) }
        case 88..<96: releaseOne(model, &random)
        case 96..<98 where count > 0:
            let cut = Int.random(in: 0..<model.state.layout.limit, using: &random)
            model.beginWrite(cut / FillStateModel.granuleSize..<Int.max, cancelFetches: Bool.random(using: &random))
        case 98 where Int.random(in: 0..<4, using: &random) == 0:
            model.failAll(FillError(.io, .shutdown, "stopped"))
        default: break
        }
    }

    private func cancelOne(_ model: FillStateModel, _ random: inout SeededRandom) {
        let waiting = Array(model.waiters.keys) + model.writes.filter { !$0.value.isGranted }.map(\.key)
        if let id = waiting.sorted().randomElement(using: &random) { #expect(model.cancel(id)) }
    }

    private func advanceFetch(_ model: FillStateModel, _ random: inout SeededRandom) {
        guard let id = model.fetches.keys.sorted().randomElement(using: &random) else { return }
        model.deliver(id, Int.random(in: 1...4, using: &random))
        if model.fetches[id] == nil { model.end(id, Bool.random(using: &random) ? failure : nil) }
    }

    private func endFetch(_ model: FillStateModel, _ random: inout SeededRandom) {
        guard let id = model.fetches.keys.sorted().randomElement(using: &random), let fetch = model.fetches[id] else {
            return
        }
        model.end(id, fetch.granules.isEmpty ? nil : failure)
    }

    private func releaseOne(_ model: FillStateModel, _ random: inout SeededRandom) {
        let granted = model.writes.filter(\.value.isGranted)
        guard let id = granted.keys.sorted().randomElement(using: &random), let granules = granted[id]?.granules else {
            return
        }
        if granules.upperBound == .max {
            let start = granules.lowerBound * FillStateModel.granuleSize
            model.truncate(to: start + Int.random(in: 0..<FillStateModel.granuleSize, using: &random), under: id)
        } else {
            model.endWrite(id, present: Bool.random(using: &random) ? granules : 0..<0)
        }
    }

    /// Lets everything that is under way come to its end without errors.
    private func settle(_ model: FillStateModel, _ random: inout SeededRandom) {
        var steps = 0
        while !model.state.isIdle, steps < 10_000 {
            steps += 1
            releaseOne(model, &random)
            guard let id = model.fetches.keys.sorted().randomElement(using: &random) else { continue }
            model.deliver(id, .max)
            model.end(id)
        }
    }
}
