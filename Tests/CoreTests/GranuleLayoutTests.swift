import HSMCore
import Testing

@Suite struct GranuleLayoutTests {
    @Test(
        "A limit is covered by the fewest granules that hold it",
        arguments: [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
    func count(limit: Int, expected: Int) {
        #expect(GranuleLayout(granuleSize: 4, limit: limit).count == expected)
    }

    @Test("The largest file has granules, and none of the arithmetic overflows")
    func largest() {
        let layout = GranuleLayout(limit: .max)
        #expect(layout.count == 1 << 47)
        #expect(layout.bytes(of: layout.count - 1..<layout.count).upperBound == .max)
        #expect(layout.bytes(of: 0..<Int.max) == 0..<Int.max)
        #expect(layout.bytes(of: Int.max - 1..<Int.max).isEmpty)
        #expect(layout.granules(touching: Int.max - 1..<Int.max) == layout.count - 1..<layout.count)
        #expect(layout.granules(coveredBy: Int.max - 1..<Int.max).isEmpty)
        #expect(layout.granules(coveredBy: 0..<Int.max) == 0..<layout.count)
    }

    @Test("Touched, covered and cut-off granules are what a search byte by byte finds")
    func everySmallCase() {
        for limit in 0...13 {
            let layout = GranuleLayout(granuleSize: 4, limit: limit)
            let bytes = (0..<layout.count).map { layout.bytes(of: $0..<$0 + 1) }
            #expect(bytes.flatMap { Array($0) } == Array(0..<limit))
            for start in 0...16 {
                for end in start...17 {
                    let range = start..<end
                    let touched = bytes.indices.filter { bytes[$0].overlaps(range) }
                    #expect(Array(layout.granules(touching: range)) == touched, "\(range) of \(limit)")
                    let covered = bytes.indices.filter { granule in bytes[granule].allSatisfy { range.contains($0) } }
                    #expect(Array(layout.granules(coveredBy: range)) == covered, "\(range) of \(limit)")
                }
            }
        }
    }

    @Test("The limit is lowered and never raised")
    func limit() {
        var layout = GranuleLayout(granuleSize: 4, limit: 10)
        layout.lowerLimit(to: 20)
        #expect(layout.limit == 10)
        layout.lowerLimit(to: 3)
        #expect(layout.limit == 3)
        #expect(layout.count == 1)
    }
}
