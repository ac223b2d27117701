import CLinux
import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

@Suite struct RecordTests {
    private static let noKey = RecordError("no long key was to be looked up")

    private func sample(key: [UInt8] = Array("a/b".utf8), version: [UInt8] = [1, 0, 255], error: String = "") throws
        -> Record
    {
        let identity = try #require(FileHandle(type: -2, bytes: (1...12).map { UInt8($0) }))
        let object = RemoteObject(key: RemoteKey(key), version: RemoteVersion(version), size: 1 << 47)
        var record = Record(
            state: .partial, object: object, modified: .init(seconds: -5, nanoseconds: 999_999_999), identity: identity,
            granuleSize: 1 << 20)
        record.flags = [.dirty, .stale, .error]
        record.epoch = 1 << 63 | 5
        record.limit = (1 << 47) - 1
        record.lastError = error
        return record
    }

    private func decode(_ bytes: [UInt8]) throws -> Record {
        try Record(encoded: bytes) { () throws(RecordError) in throw Self.noKey }
    }

    @Test(
        "Every field comes back as it was",
        arguments: [
            [], Array("x".utf8), [0xff, 0xfe, 0x2f, 0x80], [UInt8](repeating: 0x6b, count: Record.longestInlineKey),
        ] as [[UInt8]])
    func roundTrip(key: [UInt8]) throws {
        for version in [[], [UInt8](repeating: 7, count: 255)] {
            let record = try sample(key: key, version: version, error: "EIO: größer")
            #expect(try decode(record.encoded()) == record)
        }
    }

    @Test("Every state and every flag comes back", arguments: Record.State.allCases)
    func states(state: Record.State) throws {
        var record = try sample()
        record.state = state
        for flags in 0..<UInt16(32) {
            record.flags = Record.Flags(rawValue: flags)
            #expect(try decode(record.encoded()) == record)
        }
    }

    @Test("The names of flags are those of the format")
    func flagNames() {
        #expect(Record.Flags(rawValue: 31).names == ["dirty", "pinned", "stale", "lost", "error"])
    }

    @Test("A key longer than the longest is left out, and looked up elsewhere")
    func longKey() throws {
        let key = RemoteKey([UInt8](repeating: 0x6b, count: Record.longestInlineKey + 1))
        let record = try sample(key: key.bytes)
        #expect(record.encoded().count < Record.longestInlineKey)
        let found = try Record(encoded: record.encoded()) { () throws(RecordError) in key }
        #expect(found == record)
        #expect(throws: Self.noKey) { try decode(record.encoded()) }
    }

    @Test("A long error is cut, and nothing else with it")
    func longError() throws {
        let record = try sample(error: String(repeating: "e", count: 300))
        var expected = record
        expected.lastError = String(repeating: "e", count: 200)
        #expect(try decode(record.encoded()) == expected)
    }

    @Test("A record with any one bit flipped is refused")
    func flippedBits() throws {
        let good = try sample(error: "EIO").encoded()
        for bit in 0..<good.count * 8 {
            var bad = good
            bad[bit / 8] ^= 1 << (bit % 8)
            #expect(throws: RecordError.self, "bit \(bit)") { try decode(bad) }
        }
    }

    @Test("A record that is cut off anywhere, or has bytes behind it, is refused")
    func truncation() throws {
        let good = try sample(error: "EIO").encoded()
        for count in 0..<good.count {
            #expect(throws: RecordError.self, "\(count) bytes") { try decode(Array(good[..<count])) }
        }
        #expect(throws: RecordError.self) { try decode(good + [0]) }
    }

    /// A whole record whose field at `offset` was set to `bytes`, with the right checksum.
    private func patched(_ offset: Int, _ bytes: [UInt8]) throws -> [UInt8] {
        var value = try sample().encoded()
        value.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        value.replaceSubrange(8..<12, with: [0, 0, 0, 0])
        withUnsafeBytes(of: CRC32C.of(value).littleEndian) { value.replaceSubrange(8..<12, with: $0) }
        return value
    }

    @Test("An unknown version is refused by its number, however right the checksum")
    func unknownVersion() throws {
        #expect(throws: RecordError("the record has the unknown version 2")) { try decode(patched(4, [2, 0])) }
    }

    @Test(
        "Fields that cannot be are refused, however right the checksum",
        arguments: [
            (12, [5]), (13, [8]), (13, [41]), (24, [0, 0, 0, 0, 0, 0, 0, 0x80]),
            (32, [1, 0, 0, 0, 0, 0x80, 0, 0]), (48, [0, 0xca, 0x9a, 0x3b]), (56, [41]), (56, [255]),
        ] as [(Int, [UInt8])])
    func impossibleFields(field: (offset: Int, bytes: [UInt8])) throws {
        #expect(throws: RecordError.self) { try decode(patched(field.offset, field.bytes)) }
    }

    @Test("An error is kept in 200 bytes, cut between characters")
    func oneLineError() throws {
        let record = try decode(sample(error: String(repeating: "ö", count: 99) + "aböö").encoded())
        #expect(record.lastError == String(repeating: "ö", count: 99) + "ab")
        #expect(try decode(record.encoded()) == record)
    }

    @Test("The format on disk is the one that FORMAT.md describes")
    func offsets() throws {
        let bytes = try sample().encoded()
        #expect(Array(bytes[0..<8]) == Array("PHSM".utf8) + [1, 0, 0, 0])
        #expect(bytes[12] == 2 && bytes[13] == 20 && Array(bytes[14..<16]) == [0b10101, 0])
        #expect(Array(bytes[16..<24]) == [5, 0, 0, 0, 0, 0, 0, 0x80])
        #expect(Array(bytes[24..<32]) == [0, 0, 0, 0, 0, 0x80, 0, 0])
        #expect(Array(bytes[32..<40]) == [255, 255, 255, 255, 255, 0x7f, 0, 0])
        #expect(Array(bytes[40..<48]) == [0xfb, 255, 255, 255, 255, 255, 255, 255])
        #expect(Array(bytes[52..<57]) == [0xfe, 255, 255, 255, 12])
    }

    @Test("CRC32C is that of RFC 3720")
    func checksum() {
        #expect(CRC32C.of(Array("123456789".utf8)) == 0xe306_9283)
        #expect(CRC32C.of([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
        #expect(CRC32C.of([UInt8](repeating: 0xff, count: 32)) == 0x62a8_ab43)
    }
}
