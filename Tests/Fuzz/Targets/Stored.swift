import CChecksum
import HSMCore
import HSMSystem

@testable import HSMStore

// What is kept in the lower directory, which may be a damaged disk, or another's.

extension FuzzTarget {
    static let stored = [
        FuzzTarget(name: "record", maxLength: 1024, check: record),
        FuzzTarget(name: "map", maxLength: 4096, check: map),
        FuzzTarget(name: "config", check: config),
    ]

    private static func crc(_ bytes: [UInt8]) -> [UInt8] {
        let value = bytes.withUnsafeBytes { passhsm_crc32c(0, $0.baseAddress, $0.count) }
        return withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    private static func record(_ input: [UInt8]) throws {
        try decode(input, input)
        // As is, nothing gets beyond the checksum.
        var signed = Array("PHSM".utf8) + [1, 0, 0, 0] + [0, 0, 0, 0] + input.dropFirst(12)
        signed.replaceSubrange(8..<12, with: crc(signed))
        try decode(signed, input)
    }

    private static func decode(_ bytes: [UInt8], _ input: [UInt8]) throws {
        let longKey = RemoteKey(Array(repeating: 0x6b, count: 2000))
        let record: Record
        do throws(RecordError) { record = try Record(encoded: bytes) { () throws(RecordError) in longKey } } catch {
            return try expectMessage(error.cause, about: input)
        }
        try expect(record.object.size >= 0 && (0...record.object.size).contains(record.limit), "sizes out of bounds")
        try expect(record.modified.nanoseconds < 1_000_000_000, "\(record.modified.nanoseconds) ns")
        // Nothing that is asked of a layout may be too large to count.
        let layout = record.layout
        try expect(layout.count >= 0, "\(layout.count) granules")
        if layout.count > 0 {
            let last = layout.bytes(of: layout.count - 1..<layout.count)
            try expect(!last.isEmpty && last.upperBound == record.limit, "the last granule is \(last)")
        }
        do {
            let again = try Record(encoded: record.encoded()) { () throws(RecordError) in longKey }
            try expect(again == record, "a record that is written is read as another: \(record), \(again)")
        } catch let error as RecordError {
            throw FuzzFinding("a record that is written cannot be read: \(error.cause): \(record)")
        }
    }

    /// A page of a residency map: its first one, and any other.
    private static func map(_ input: [UInt8]) throws {
        var page = Array((input + Array(repeating: 0, count: Sidecar.pageSize)).prefix(Sidecar.pageSize))
        for isSigned in [false, true] {
            if isSigned { page.replaceSubrange(0..<4, with: crc(Array(page[4...]))) }
            if let header = Sidecar.Header(page: page) {
                try expect(Sidecar.Header(page: header.page) == header, "a header that is written is read as another")
            }
            let number = page[8..<16].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            guard let number = Int(exactly: number), number > 0, var found = Sidecar.Page(page, number: number) else {
                continue
            }
            try expect(Sidecar.Page(found.sealed(), number: number) != nil, "a page that is written is not believed")
            for granule in [0, 1, 3, 4, 500, Sidecar.granulesPerPage - 1] {
                found.set(.filled, of: granule, checksum: 0x1234_5678)
                try expect(
                    found.presence(of: granule) == .filled && found.checksum(of: granule) == 0x1234_5678,
                    "granule \(granule) is not as it was set")
            }
        }
        page.replaceSubrange(4..<12, with: "PHSMMAP2".utf8)
        page.replaceSubrange(0..<4, with: crc(Array(page[4...])))
        let header = Sidecar.Header(page: page)
        try expect(header.map { Sidecar.Header(page: $0.page) == $0 } == true, "a signed header is not believed")
    }

    private static func config(_ input: [UInt8]) throws {
        do {
            let configuration = try StoreConfiguration(input)
            try expect(GranuleLayout.granuleSizes.contains(configuration.granuleSize), "granules of an odd size")
            let again = try StoreConfiguration(configuration.bytes)
            try expect(again == configuration, "a configuration that is written is read as another")
        } catch let error as StoreError { try expectMessage(error.description, about: input) }
    }
}
