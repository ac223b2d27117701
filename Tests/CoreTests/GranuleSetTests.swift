import HSMCore
import TestSupport
import Testing

@Suite struct GranuleSetTests {
    /// Three pages of the bitmap and a bit, so that every boundary is crossed.
    private static let span = 3 * 4096 + 100

    @Test("Random inserts and removals agree with an array of booleans")
    func model() {
        var random = SeededRandom()
        for _ in 0..<12 {
            var set = GranuleSet()
            var model = [Bool](repeating: false, count: Self.span)
            for _ in 0..<40 {
                let most = [1, 70, 5000, Self.span].randomElement(using: &random) ?? 1
                let range = random.range(below: Self.span, most: most)
                let inserts = Bool.random(using: &random)
                if inserts { set.insert(range) } else { set.remove(range) }
                for index in range { model[index] = inserts }
                check(set, model, &random)
            }
            #expect(set.runs() == Self.runs(of: model))
            #expect(set.runs(maxCount: 2) == Array(Self.runs(of: model).prefix(2)))
            set.remove(0..<Self.span)
            #expect(set == GranuleSet(), "an empty page is not kept")
        }
    }

    private func check(_ set: GranuleSet, _ model: [Bool], _ random: inout SeededRandom) {
        #expect(set.count == model.count { $0 })
        #expect(set.isEmpty == !model.contains(true))
        let range = random.range(below: Self.span, most: Self.span)
        #expect(set.contains(range) == model[range].allSatisfy { $0 })
        let gap = model[range].firstIndex(of: false)
        let gapEnd = gap.map { model[$0..<range.upperBound].firstIndex(of: true) ?? range.upperBound }
        #expect(set.firstGap(in: range)?.lowerBound == gap)
        #expect(set.firstGap(in: range)?.upperBound == gapEnd)
        let run = model[range].firstIndex(of: true)
        let runEnd = run.map { model[$0..<range.upperBound].firstIndex(of: false) ?? range.upperBound }
        #expect(set.firstRun(in: range)?.lowerBound == run)
        #expect(set.firstRun(in: range)?.upperBound == runEnd)
        let granule = Int.random(in: 0..<Self.span, using: &random)
        #expect(set.contains(granule) == model[granule])
    }

    private static func runs(of model: [Bool]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        for (index, isMember) in model.enumerated() where isMember {
            if let last = result.last, last.upperBound == index {
                result[result.count - 1] = last.lowerBound..<index + 1
            } else {
                result.append(index..<index + 1)
            }
        }
        return result
    }

    @Test("A few granules far apart cost neither time nor memory for what lies between")
    func sparse() {
        var set = GranuleSet()
        let places = [0, 4095, 4096, 1 << 20, 1 << 40, (1 << 47) - 1]
        for place in places { set.insert(place..<place + 1) }
        #expect(set.count == places.count)
        #expect(
            set.runs() == [
                0..<1, 4095..<4097, 1 << 20..<(1 << 20) + 1, 1 << 40..<(1 << 40) + 1, (1 << 47) - 1..<1 << 47,
            ])
        #expect(set.firstRun(in: 5000..<Int.max) == 1 << 20..<(1 << 20) + 1)
        #expect(set.firstGap(in: 0..<Int.max) == 1..<4095)
        #expect(set.firstGap(in: 1 << 40..<Int.max)?.lowerBound == (1 << 40) + 1)
        #expect(!set.contains(0..<Int.max))
        set.remove(4096..<Int.max)
        #expect(set.runs() == [0..<1, 4095..<4096])
    }

    @Test("A run of 2^47 granules costs neither time nor memory for what is in it")
    func dense() {
        var set = GranuleSet(5000..<1 << 47)
        #expect(set.count == (1 << 47) - 5000)
        #expect(set.runs() == [5000..<1 << 47])
        #expect(set.contains(5000..<1 << 47) && set.contains(1 << 46) && !set.contains(4999))
        #expect(set.firstGap(in: 6000..<Int.max) == 1 << 47..<Int.max)
        set.remove(1 << 40..<1 << 45)
        set.remove(8192..<12288)
        set.insert((1 << 40) + 7..<(1 << 40) + 9)
        #expect(
            set.runs() == [
                5000..<8192, 12288..<1 << 40, (1 << 40) + 7..<(1 << 40) + 9, 1 << 45..<1 << 47,
            ])
        #expect(set.count == set.runs().reduce(0) { $0 + $1.count })
        set.insert(0..<1 << 47)
        #expect(set == GranuleSet(0..<1 << 47), "one state has one form")
        set.remove(0..<Int.max)
        #expect(set == GranuleSet())
    }

    @Test("An empty range changes nothing and is always contained")
    func empty() {
        var set = GranuleSet()
        set.insert(7..<7)
        #expect(set.isEmpty)
        #expect(set.contains(7..<7))
        #expect(set.firstGap(in: 7..<7) == nil)
        #expect(set.firstRun(in: 7..<7) == nil)
        #expect(GranuleSet(3..<9).runs() == [3..<9])
    }
}
