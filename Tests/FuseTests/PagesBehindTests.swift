import Testing

@testable import HSMFuse

@Suite struct PagesBehindTests {
    private static let mebibyte = 1 << 20

    /// Reads the MiBs in `order`, drops all that may be dropped, and returns which of them are left.
    private func left(after order: [Int], _ disturb: (inout PagesBehind, Int) -> Void = { _, _ in }) -> Set<Int> {
        var (behind, left) = (PagesBehind(), Set<Int>())
        for number in order {
            left.insert(number)
            let range = number * Self.mebibyte..<(number + 1) * Self.mebibyte
            if let dropped = behind.noteRead(range) {
                left.subtract(dropped.lowerBound / Self.mebibyte..<dropped.upperBound / Self.mebibyte)
                behind.noteDropped(dropped)
            }
            disturb(&behind, number)
        }
        return left
    }

    @Test("Of a sequential reader's pages the last 16 to 32 MiB are kept")
    func sequential() {
        #expect(left(after: Array(0..<96)) == Set(80..<96))
        #expect(left(after: Array(0..<31)) == Set(0..<31))
    }

    @Test("A mapping that reads its dropped page again hides no pages of the reader")
    func mapping() {
        let left = left(after: Array(0..<96)) { behind, _ in _ = behind.noteRead(0..<4096) }
        #expect(left.count <= 32 && left.isSuperset(of: 80..<96))
    }

    @Test("Requests that come out of order, by more than 4 MiB too, hide no pages")
    func disorder() {
        let swapped = (0..<96).map { $0 ^ 3 }
        #expect(left(after: swapped).count <= 32)
        // Each sixteen MiB come from back to front.
        let reversed = (0..<6).flatMap { part in (part * 16..<part * 16 + 16).reversed() }
        #expect(left(after: reversed).count <= 40)
    }

    @Test("Random reads drop nothing that was read last, and take bounded memory")
    func random() {
        let order = (0..<64).map { $0 * 7919 % 4096 * 10 }
        #expect(left(after: order).count == 64)
    }
}
