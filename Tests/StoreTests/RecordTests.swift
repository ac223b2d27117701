import CLinux
import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

@Suite struct RecordTests {
    private static let reference = ObjectReference(table: 3, offset: 1 << 33, checksum: 0x0102_0304)

    private func sample(key: [UInt8] = Array("a/b".utf8), version: [UInt8] = [1, 0, 255], error: String = "") -> Record
    {
        let object = RemoteObject(key: RemoteKey(key), version: RemoteVersion(version), size: 1 << 47)
        var record = Record(
            state: .partial, object: object, modified: .init(seconds: -5, nanoseconds: 999_999_999),
            identity: GoldenRecord.xfs, granuleSize: 1 << 20)
        record.flags = [.dirty, .stale, .error]
        record.epoch = 1 << 63 | 5
        record.limit = (1 << 47) - 1
        record.changed = .init(seconds: 1 << 40, nanoseconds: 1)
        record.contentChecksum = 0x8000_0001
        record.lastError = error
        return record
    }

    /// What the bytes say of `handle`, with `object` where they only refer to it.
    private func decode(
        _ bytes: [UInt8], of handle: FileHandle = GoldenRecord.xfs, _ object: RemoteObject? = nil
    ) throws -> Record {
        let value = try RecordValue(bytes)
        try #require(value.owner.isOf(handle))
        switch value.objectLocation {
        case .inline(let here): return Record(value, handle, here, at: nil)
        case .table(let reference): return Record(value, handle, try #require(object), at: reference)
        case .keyFile(let rest):
            var whole = rest
            whole.key = try #require(object).key
            return Record(value, handle, whole, at: nil)
        }
    }

    @Test(
        "Every field comes back as it was",
        arguments: [[], Array("x".utf8), [0xff, 0xfe, 0x2f, 0x80], [UInt8](repeating: 0x6b, count: 5000)] as [[UInt8]])
    func roundTrip(key: [UInt8]) throws {
        for version in [[], [UInt8](repeating: 7, count: 255)] {
            let record = sample(key: key, version: version, error: "EIO: größer")
            #expect(try decode(record.encoded(nil)) == record)
            let found = try decode(record.encoded(Self.reference), record.object)
            #expect(found == record && found.reference == Self.reference)
        }
    }

    @Test("Every state and every flag comes back, with and without each field", arguments: Record.State.allCases)
    func states(state: Record.State) throws {
        for flags in 0..<UInt16(32) {
            for fields in 0..<16 {
                var record = sample()
                record.state = state
                record.flags = Record.Flags(rawValue: flags)
                if fields & 1 == 0 { record.limit = record.object.size }
                if fields & 2 == 0 { record.changed = nil }
                if fields & 4 == 0 { record.contentChecksum = nil }
                if fields & 8 != 0 { record.lastError = "EIO" }
                #expect(try decode(record.encoded(nil)) == record)
            }
        }
    }

    @Test("Sizes, times and epochs at the ends of their types come back")
    func extremes() throws {
        for size in [0, 1, 127, 128, 1 << 32, Int.max - 1, Int.max] {
            for limit in [0, size / 2, size] {
                for seconds in [Int.min, -1, 0, 1 << 31, Int.max] {
                    for epoch in [0, 1, UInt64.max] {
                        var record = sample()
                        record.object.size = size
                        record.limit = limit
                        record.modified = .init(seconds: seconds, nanoseconds: 0)
                        record.changed = .init(seconds: -1 - seconds, nanoseconds: 999_999_999)
                        record.epoch = epoch
                        #expect(try decode(record.encoded(nil)) == record)
                    }
                }
            }
        }
        for shift in 9...40 {
            let record = Record(
                state: .offline, object: sample().object, modified: .init(seconds: 0, nanoseconds: 0),
                identity: GoldenRecord.ext4, granuleSize: 1 << shift)
            #expect(try decode(record.encoded(nil), of: GoldenRecord.ext4) == record)
        }
    }

    @Test("The names of flags are those of the format")
    func flagNames() {
        #expect(Record.Flags(rawValue: 31).names == ["dirty", "pinned", "stale", "lost", "error"])
    }

    @Test("What programs have written is read, in either format", arguments: GoldenRecord.all)
    func golden(golden: GoldenRecord) throws {
        let record = golden.record
        if let format1 = golden.format1 {
            #expect(try decode([UInt8](hexadecimal: format1), of: record.identity, record.object) == record)
            #expect(record.encodedAsFormat1().hexadecimal == format1)
        }
        let format2 = [UInt8](hexadecimal: golden.format2)
        let found = try decode(format2, of: record.identity, record.object)
        #expect(found == record && found.reference == golden.reference)
        #expect(record.encoded(golden.reference).hexadecimal == golden.format2)
    }

    @Test("A usual record fits an inode of 256 bytes on ext4: 64 bytes are left for its value")
    func length() {
        var record = sample(key: [UInt8](repeating: 0x6b, count: 300))
        record.state = .dual
        record.flags = [.pinned]
        record.epoch = 100
        record.object.size = 30 << 30
        record.limit = record.object.size
        record.modified = .init(seconds: 1_900_000_000, nanoseconds: 999_999_999)
        record.changed = record.modified
        #expect(record.encoded(ObjectReference(table: 100, offset: 1 << 34, checksum: .max)).count <= 60)
        record.object.version = RemoteVersion([1])
        record.object.key = RemoteKey([UInt8](repeating: 0x6b, count: RecordFormat2.maxInlineObject - 3))
        #expect(record.keepsObject && record.encoded(nil).count <= 64)
        record.object.key = RemoteKey(record.object.key.bytes + [0x6b])
        #expect(!record.keepsObject)
    }

    @Test("A record with any one bit flipped is refused, in either format", arguments: GoldenRecord.all)
    func flippedBits(golden: GoldenRecord) throws {
        for good in [golden.format1, golden.format2].compactMap({ $0 }).map({ [UInt8](hexadecimal: $0) }) {
            for bit in 0..<good.count * 8 {
                var bad = good
                bad[bit / 8] ^= 1 << (bit % 8)
                #expect(throws: RecordError.self, "bit \(bit)") { try RecordValue(bad) }
            }
        }
    }

    @Test("A record that is cut off anywhere, or has bytes behind it, is refused", arguments: GoldenRecord.all)
    func truncation(golden: GoldenRecord) throws {
        for good in [golden.format1, golden.format2].compactMap({ $0 }).map({ [UInt8](hexadecimal: $0) }) {
            for count in 0..<good.count {
                #expect(throws: RecordError.self, "\(count) bytes") { try RecordValue(Array(good[..<count])) }
            }
            #expect(throws: RecordError.self) { try RecordValue(good + [0]) }
        }
    }

    @Test("A record that is cut off or longer is refused, or another one, however right the checksum")
    func signedTruncation() throws {
        let good = sample(error: "EIO").encoded(Self.reference)
        for count in 6..<good.count {
            #expect(throws: RecordError.self, "\(count) bytes") { try RecordValue(signed(Array(good[..<count]))) }
        }
        #expect(throws: RecordError.self) { try RecordValue(signed(good + [0])) }
    }

    /// The same with the right checksum.
    private func signed(_ bytes: [UInt8]) -> [UInt8] {
        var value = bytes
        value.replaceSubrange(2..<6, with: [0, 0, 0, 0])
        withUnsafeBytes(of: CRC32C.of(value).littleEndian) { value.replaceSubrange(2..<6, with: $0) }
        return value
    }

    @Test("An unknown version is refused, however right the checksum")
    func unknownVersion() throws {
        var value = sample().encoded(nil)
        value[1] = 3
        #expect(throws: RecordError("the record is not one of PassHSM's, or of a later version")) {
            try RecordValue(signed(value))
        }
        var old = [UInt8](hexadecimal: try #require(GoldenRecord.all[0].format1))
        old[4] = 3
        #expect(throws: RecordError("the record has the unknown version 3")) { try RecordValue(old) }
    }

    @Test("Fields that cannot be are refused, however right the checksum")
    func impossibleFields() throws {
        let small = Record(
            state: .offline, object: RemoteObject(key: RemoteKey([1]), version: RemoteVersion([2]), size: 5),
            modified: .init(seconds: 0, nanoseconds: 0), identity: GoldenRecord.ext4)
        // Start 2, checksum 4, owner 8; then state, fields, flags, epoch, size, seconds, nanoseconds, object.
        let value = small.encoded(nil)
        #expect(Array(value[14...]) == [3 | 7 << 3, 0, 0, 1, 5, 0, 0, 0, 1, 2, 1])
        let tooLong: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]
        let negative: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
        for (offset, bytes) in [
            (14, [5]), (14, [7 | 7 << 3]), (15, [32]), (16, [0x80, 0x80, 4]), (17, [0x80, 0]), (17, tooLong),
            (18, negative), (15, [1, 0, 1, 5, 5]), (20, [0x80, 0x94, 0xeb, 0xdc, 3]), (21, [7]), (21, [1, 0]),
            (22, [200]),
        ] as [(Int, [UInt8])] {
            var bad = value
            let isInsert = bytes.count > 1 && offset != 21
            bad.replaceSubrange(offset..<(isInsert ? offset + 1 : offset + bytes.count), with: bytes)
            #expect(throws: RecordError.self, "\(offset): \(bytes)") { try RecordValue(signed(bad)) }
        }
    }

    @Test("An error is kept in 200 bytes, cut between characters, and nothing else with it")
    func oneLineError() throws {
        let record = try decode(sample(error: String(repeating: "ö", count: 99) + "aböö").encoded(nil))
        #expect(record.lastError == String(repeating: "ö", count: 99) + "ab")
        #expect(try decode(record.encoded(nil)) == record)
        let long = try decode(sample(error: String(repeating: "e", count: 300)).encoded(nil))
        #expect(long == sample(error: String(repeating: "e", count: 200)))
    }

    @Test("An object that is changed is no longer the one in the table; one that is set to what it was is")
    func reference() throws {
        var record = sample().at(Self.reference)
        record.object = sample().object
        record.flags = []
        #expect(record.reference == Self.reference)
        record.object.digest = RemoteDigest(.crc32, [1, 2, 3, 4])
        #expect(record.reference == nil)
    }

    @Test("A number is read as it was written, and nothing that is longer than it has to be")
    func numbers() throws {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 62, UInt64.max] as [UInt64] {
            var writer = ByteWriter()
            writer.putVariable(value)
            writer.putVariable(signed: Int64(bitPattern: value))
            var reader = ByteReader(writer.bytes)
            #expect(reader.takeVariable() == value && reader.takeVariableSigned() == Int64(bitPattern: value))
            #expect(reader.isAtEnd)
        }
        for bytes in [[], [0x80], [0x80, 0], [UInt8](repeating: 0xff, count: 11)] as [[UInt8]] {
            var reader = ByteReader(bytes)
            #expect(reader.takeVariable() == nil)
        }
    }

    @Test("CRC32C is that of RFC 3720")
    func checksum() {
        #expect(CRC32C.of(Array("123456789".utf8)) == 0xe306_9283)
        #expect(CRC32C.of([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
        #expect(CRC32C.of([UInt8](repeating: 0xff, count: 32)) == 0x62a8_ab43)
    }
}
