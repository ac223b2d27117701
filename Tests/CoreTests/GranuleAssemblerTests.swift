import Testing

@testable import HSMCore

@Suite struct GranuleAssemblerTests {
    private static let layout = GranuleLayout(granuleSize: 4, limit: 11)
    private static let content = (0..<11).map { UInt8($0) }

    /// Feeds `content` cut at the set bits of `cuts`; what came out, by granule.
    private func assemble(
        _ granules: Range<Int>, cuts: Int, extra: Int = 0
    ) throws -> (assembler: GranuleAssembler, granules: [Int: [UInt8]]) {
        var assembler = GranuleAssembler(granules: granules, layout: Self.layout)
        var result: [Int: [UInt8]] = [:]
        var next = granules.lowerBound
        let bytes = Self.content[Self.layout.bytes(of: granules)] + Array(repeating: 99, count: extra)
        var pieces: [[UInt8]] = [[]]
        for (index, byte) in bytes.enumerated() {
            if index > 0, cuts >> (index - 1) & 1 == 1 { pieces.append([]) }
            pieces[pieces.count - 1].append(byte)
        }
        for piece in pieces {
            try piece.withUnsafeBytes { buffer in
                try assembler.add(buffer) { (whole, bytes) throws(FillError) in
                    #expect(whole.lowerBound == next && !whole.isEmpty)
                    #expect(bytes.count == Self.layout.bytes(of: whole).count)
                    next = whole.upperBound
                    for granule in whole {
                        let place = Self.layout.bytes(of: granule..<granule + 1)
                        let start = place.lowerBound - Self.layout.bytes(of: whole).lowerBound
                        result[granule] = Array(bytes[start..<start + place.count])
                    }
                }
            }
        }
        return (assembler, result)
    }

    @Test("However the stream is cut, every granule comes out whole, once and in order")
    func everyCut() throws {
        for granules in [0..<3, 0..<2, 1..<3, 2..<3] {
            let size = Self.layout.bytes(of: granules).count
            for cuts in 0..<(1 << (size - 1)) {
                let (assembler, result) = try assemble(granules, cuts: cuts)
                #expect(assembler.isFinished)
                #expect(assembler.received == size)
                #expect(granules.flatMap { result[$0] ?? [] } == Array(Self.content[Self.layout.bytes(of: granules)]))
            }
        }
    }

    @Test("More bytes than asked for are refused, however they are cut, and never delivered")
    func tooMany() {
        for granules in [0..<2, 0..<3, 1..<2] {
            let size = Self.layout.bytes(of: granules).count + 2
            for cuts in 0..<(1 << (size - 1)) {
                do {
                    _ = try assemble(granules, cuts: cuts, extra: 2)
                    Issue.record("\(granules) cut as \(cuts) took too many bytes")
                } catch {
                    #expect((error as? FillError)?.reason == .remoteFailed)
                }
            }
        }
    }

    @Test("Too few bytes leave it unfinished, and a part of a granule is never delivered")
    func tooFew() throws {
        for size in 0..<8 {
            var assembler = GranuleAssembler(granules: 0..<2, layout: Self.layout)
            var delivered = 0
            try Array(Self.content[..<size]).withUnsafeBytes { buffer in
                try assembler.add(buffer) { (_, bytes) throws(FillError) in delivered += bytes.count }
            }
            #expect(!assembler.isFinished)
            #expect(delivered == size / 4 * 4)
        }
    }

    @Test("Empty pieces are nothing")
    func empty() throws {
        var assembler = GranuleAssembler(granules: 0..<1, layout: Self.layout)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        for piece in [[], [1, 2], [], [3, 4], []] as [[UInt8]] {
            try piece.withUnsafeBytes { buffer in
                try assembler.add(piece.isEmpty ? none : buffer) { (_, _) throws(FillError) in }
            }
        }
        #expect(assembler.isFinished)
    }

    @Test("An error of the receiver ends the stream with that error", arguments: [0, 0b1])
    func failure(cuts: Int) {
        let refusal = FillError(.noSpace, .lowerFailed, "full")
        #expect(throws: refusal) {
            var assembler = GranuleAssembler(granules: 0..<1, layout: Self.layout)
            for piece in cuts == 0 ? [[1, 2, 3, 4]] : [[1], [2, 3, 4]] as [[UInt8]] {
                try piece.withUnsafeBytes { buffer in
                    try assembler.add(buffer) { (_, _) throws(FillError) in throw refusal }
                }
            }
        }
    }
}
