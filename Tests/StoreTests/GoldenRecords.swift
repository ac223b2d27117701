import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// Records, and the bytes that programs have written for them. The bytes are never made anew: they are on disks.
struct GoldenRecord: Sendable, CustomTestStringConvertible {
    let name: String
    /// Nil where the program of that time did not know what the record says.
    let format1: String?
    let format2: String
    let record: Record
    /// Where format 2 keeps the object; nil: in the record.
    let reference: ObjectReference?

    var testDescription: String { name }

    static let ext4 = handle(1, [0x0c, 0, 0, 0, 0xd2, 0x02, 0x96, 0x49])
    static let xfs = handle(0x81, [0x83, 0, 0, 0, 0, 0, 0, 0, 0x15, 0xcd, 0x5b, 0x07])

    private static func handle(_ type: Int32, _ bytes: [UInt8]) -> FileHandle {
        guard let handle = FileHandle(type: type, bytes: bytes) else { preconditionFailure("a handle of the tests") }
        return handle
    }

    private static func make(
        _ name: String, _ format1: String?, _ format2: String, at reference: ObjectReference? = nil,
        _ record: Record, _ change: (inout Record) -> Void = { _ in }
    ) -> GoldenRecord {
        var record = record
        change(&record)
        return GoldenRecord(name: name, format1: format1, format2: format2, record: record, reference: reference)
    }

    private static let film = RemoteObject(
        key: RemoteKey(Array("projects/2019/film.mov".utf8)),
        version: RemoteVersion(Array("1546300800.123456789-5000000000".utf8)), size: 5_000_000_000)

    static let all: [GoldenRecord] = [
        make(
            "offline",
            """
            5048534d010000008b0a4b7503100000010000000000000000f2052a0100000000f2052a0100000080ad2a5c0000000015cd5b07\
            01000000080c000000d20296491f313534363330303830302e3132333435363738392d3530303030303030303000160070726f6a\
            656374732f323031392f66696c6d2e6d6f76
            """,
            """
            5002497a7d71356840bc460e9d0a3b10000180e497d01280b6d5c20b959aef3a010878563412
            """, at: ObjectReference(table: 1, offset: 8, checksum: 0x1234_5678),
            Record(
                state: .offline, object: film, modified: .init(seconds: 1_546_300_800, nanoseconds: 123_456_789),
                identity: ext4)),
        make(
            "partial and dirty",
            """
            5048534d01000000c2129aa202100300030000000000000000f2052a01000000701101000000000080ad2a5c0000000015cd5b07\
            01000000080c000000d20296491f313534363330303830302e3132333435363738392d3530303030303030303000160070726f6a\
            656374732f323031392f66696c6d2e6d6f76
            """,
            """
            5002bf93e54b356840bc460e9d0a3a11030380e497d012f0a20480b6d5c20b959aef3a0180cab5ee01ffffffff
            """, at: ObjectReference(table: 1, offset: 500_000_000, checksum: 0xffff_ffff),
            Record(
                state: .partial, object: film, modified: .init(seconds: 1_546_300_800, nanoseconds: 123_456_789),
                identity: ext4)
        ) {
            $0.flags = [.dirty, .pinned]
            $0.epoch = 3
            $0.limit = 70_000
        },
        make(
            "dual",
            """
            5048534d0100000058e3bb7801140000010000000000000007000000000000000700000000000000fbffffffffffffffffc99a3b\
            810000000c830000000000000015cd5b07222264343164386364393866303062323034653938303039393865636638343237652200\
            030066fffe02000102030405060708090a0b0c0d0e0f
            """,
            """
            5002d1a40236b3c9b5215e617f23590000010709ff93ebdc0302000102030405060708090a0b0c0d0e0f22226434316438636439\
            3866303062323034653938303039393865636638343237652266fffe
            """,
            Record(
                state: .dual,
                object: RemoteObject(
                    key: RemoteKey([0x66, 0xff, 0xfe]),
                    version: RemoteVersion(Array("\"d41d8cd98f00b204e9800998ecf8427e\"".utf8)), size: 7,
                    digest: RemoteDigest(.md5, (0..<16).map { UInt8($0) })),
                modified: .init(seconds: -5, nanoseconds: 999_999_999), identity: xfs, granuleSize: 1 << 20)),
        make(
            "releasing, with a long key",
            """
            5048534d0100000042b6f94b040c1c00ffffffffffffffffffffffffffffff7fffffffffffffff7f000000000000000000000000\
            810000000c830000000000000015cd5b07000d45494f3a206772c3b6c39f6572ffff
            """,
            """
            5002b7601959b3c9b5215e617f231c181cffffffffffffffffff01ffffffffffffffff7f00000d45494f3a206772c3b6c39f6572\
            ffffffff0fffffffffffffffffff0100000000
            """, at: ObjectReference(table: .max, offset: .max, checksum: 0),
            Record(
                state: .releasing,
                object: RemoteObject(
                    key: RemoteKey([UInt8](repeating: 0x6b, count: 1025)), version: RemoteVersion([]), size: .max),
                modified: .init(seconds: 0, nanoseconds: 0), identity: xfs, granuleSize: 4096)
        ) {
            $0.flags = [.error, .lost, .stale]
            $0.epoch = .max
            $0.lastError = "EIO: größer"
        },
        make(
            "local",
            """
            5048534d010000007bbbf1f900090000010000000000000000000000000000000000000000000000ffffffffffffff7f00000000\
            01000000080c000000d202964900000000
            """,
            """
            50025aebe424356840bc460e9d0a0000000100feffffffffffffffff01000000
            """,
            Record(
                state: .local, object: RemoteObject(key: RemoteKey([]), version: RemoteVersion([]), size: 0),
                modified: .init(seconds: .max, nanoseconds: 0), identity: ext4, granuleSize: 512)),
        make(
            "dual, with everything that format 2 added", nil,
            """
            5002add1338db3c9b5215e617f23f916ffff030180e497d01280b6d5c20b959aef3affffffffffffffffff01ff93ebdc03efbead\
            de02ac0207000000
            """,
            at: ObjectReference(table: 2, offset: 300, checksum: 7),
            Record(
                state: .dual, object: film, modified: .init(seconds: 1_546_300_800, nanoseconds: 123_456_789),
                identity: xfs, granuleSize: 1 << 40)
        ) {
            $0.changed = .init(seconds: .min, nanoseconds: 999_999_999)
            $0.contentChecksum = 0xdead_beef
            $0.flags = Record.Flags(rawValue: .max)
        },
    ]
}
