import CChecksum
import HSMCore
import HSMSystem

@testable import HSMStore

// What is kept in the lower directory, which may be a damaged disk, or another's.

extension FuzzTarget {
    static let stored = [
        FuzzTarget(name: "record", maxLength: 1024, check: record),
        FuzzTarget(name: "object", maxLength: 2048, check: object),
        FuzzTarget(name: "map", maxLength: 4096, check: map),
        FuzzTarget(name: "config", check: config),
        FuzzTarget(name: "imported-names", maxLength: 1024, check: importedNames),
    ]

    private static func crc(_ bytes: [UInt8]) -> [UInt8] {
        let value = bytes.withUnsafeBytes { passhsm_crc32c(0, $0.baseAddress, $0.count) }
        return withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    private static func record(_ input: [UInt8]) throws {
        try decode(input, input)
        // As is, nothing gets beyond the checksum.
        var format1 = Array("PHSM".utf8) + [1, 0, 0, 0] + [0, 0, 0, 0] + input.dropFirst(12)
        format1.replaceSubrange(8..<12, with: crc(format1))
        try decode(format1, input)
        var format2 = RecordFormat2.start + [0, 0, 0, 0] + input.dropFirst(6)
        format2.replaceSubrange(2..<6, with: crc(format2))
        try decode(format2, input)
    }

    private static func decode(_ bytes: [UInt8], _ input: [UInt8]) throws {
        let value: RecordValue
        do throws(RecordError) { value = try RecordValue(bytes) } catch {
            return try expectMessage(error.cause, about: input)
        }
        // What is not in the value is looked up elsewhere.
        var object = RemoteObject(
            key: RemoteKey(Array(repeating: 0x6b, count: 2000)), version: RemoteVersion([]), size: value.size)
        var reference: ObjectReference?
        switch value.objectLocation {
        case .inline(let here): object = here
        case .keyFile(let rest): (object.version, object.digest) = (rest.version, rest.digest)
        case .table(let place): reference = place
        }
        guard let identity = FileHandle(type: 1, bytes: [1, 2, 3]) else { throw FuzzFinding("there is no handle") }
        let record = Record(value, identity, object, at: reference)
        try expect(record.object.size >= 0 && (0...record.object.size).contains(record.limit), "sizes out of bounds")
        for time in [record.modified, record.changed].compactMap({ $0 }) {
            try expect(time.nanoseconds < 1_000_000_000, "\(time.nanoseconds) ns")
        }
        // Nothing that is asked of a layout may be too large to count.
        let layout = record.layout
        try expect(layout.count >= 0, "\(layout.count) granules")
        if layout.count > 0 {
            let last = layout.bytes(of: layout.count - 1..<layout.count)
            try expect(!last.isEmpty && last.upperBound == record.limit, "the last granule is \(last)")
        }
        do {
            let again = try RecordValue(record.encoded(reference))
            try expect(again.owner.isOf(identity), "a record that is written is another file's")
            if case .inline(let here) = again.objectLocation { object = here }
            try expect(
                Record(again, identity, object, at: nil) == record,
                "a record that is written is read as another: \(record), \(again)")
        } catch let error as RecordError {
            throw FuzzFinding("a record that is written cannot be read: \(error.cause): \(record)")
        }
    }

    /// An entry of the table of objects, and what it holds.
    private static func object(_ input: [UInt8]) throws {
        for bytes in [input, crc(Array(input.dropFirst(4))) + input.dropFirst(4)] {
            guard let count = ObjectTable.Entry.count(of: bytes) else {
                try expect(ObjectTable.Entry(bytes: bytes) == nil, "an entry that can be none is one")
                continue
            }
            try expect(count <= 2 << 20, "an entry of \(count) bytes")
            _ = ObjectTable.Entry(bytes: Array(bytes.prefix(count)))
        }
        let entry = ObjectTable.Entry(input)
        let again = ObjectTable.Entry(bytes: entry.bytes + input)
        try expect(again?.content == input, "an entry that is written is read as another")
        try expect(ObjectTable.Entry.count(of: entry.bytes) == entry.bytes.count, "an entry has another length")
        if let object = RemoteObject(stored: input, size: 1) {
            try expect(RemoteObject(stored: object.storedBytes, size: 1) == object, "an object is read as another")
        }
    }

    /// A page of a residency map: its first one, and any other.
    private static func map(_ input: [UInt8]) throws {
        var page = Array((input + Array(repeating: 0, count: ResidencyMap.pageSize)).prefix(ResidencyMap.pageSize))
        for isSigned in [false, true] {
            if isSigned { page.replaceSubrange(0..<4, with: crc(Array(page[4...]))) }
            if let header = ResidencyMap.Header(page: page) {
                try expect(
                    ResidencyMap.Header(page: header.page) == header, "a header that is written is read as another")
            }
            let number = page[8..<16].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            guard let number = Int(exactly: number), number > 0, var found = ResidencyMap.Page(page, number: number)
            else {
                continue
            }
            try expect(
                ResidencyMap.Page(found.sealed(), number: number) != nil, "a page that is written is not believed")
            for granule in [0, 1, 3, 4, 500, ResidencyMap.granulesPerPage - 1] {
                found.set(.filled, of: granule, checksum: 0x1234_5678)
                try expect(
                    found.presence(of: granule) == .filled && found.checksum(of: granule) == 0x1234_5678,
                    "granule \(granule) is not as it was set")
            }
        }
        page.replaceSubrange(4..<12, with: "PHSMMAP2".utf8)
        page.replaceSubrange(0..<4, with: crc(Array(page[4...])))
        let header = ResidencyMap.Header(page: page)
        try expect(header.map { ResidencyMap.Header(page: $0.page) == $0 } == true, "a signed header is not believed")
    }

    private static func config(_ input: [UInt8]) throws {
        do {
            let configuration = try StoreConfiguration(input)
            try expect(GranuleLayout.granuleSizes.contains(configuration.granuleSize), "granules of an odd size")
            let again = try StoreConfiguration(configuration.bytes)
            try expect(again == configuration, "a configuration that is written is read as another")
        } catch let error as StoreError { try expectMessage(error.description, about: input) }
    }

    /// The list of names that the last import knew.
    private static func importedNames(_ input: [UInt8]) throws {
        let signed = Array("PHSMNAM1".utf8) + crc(Array(input.dropFirst(12))) + input.dropFirst(12)
        for bytes in [input, signed] {
            guard let names = ImportedNames(bytes) else { continue }
            try expect(names.entries.count * 16 <= bytes.count, "\(names.entries.count) names")
            try expect(
                ImportedNames(names.encoded)?.entries == names.entries, "a list that is written is read as another")
            for entry in names.entries { try expect(names[entry.path] == entry, "a name is not found") }
        }
    }
}
