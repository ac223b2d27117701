import HSMCore
import NIOHTTP1
import Testing

@testable import HSMRemotes

@Suite struct ObjectHeadTests {
    static func head(_ headers: [(String, String)]) throws -> ObjectHead {
        try ObjectHead(
            HTTPHeaders([("ETag", "\"e\""), ("Content-Length", "3")] + headers), RemoteKey(Array("key".utf8)))
    }

    /// As s3fs writes them, as rclone does with --metadata, and by hand.
    @Test(arguments: [
        ("33188", 0o644), ("33261", 0o755), ("16877", 0o755), ("16832", 0o700), ("35309", 0o4755), ("100644", 0o644),
        ("100751", 0o751), ("104755", 0o4755), ("40755", 0o755), ("41777", 0o1777), ("0100600", 0o600), ("0755", 0o755),
        ("644", 0o644), ("755", 0o755), ("448", 0o700), ("x", nil), ("", nil), ("-1", nil), ("99999999999", nil),
    ])
    func `a mode's kind of file tells decimal digits from octal ones`(_ text: String, _ expected: UInt32?) throws {
        #expect(try Self.head([("x-amz-meta-mode", text)]).metadata.permissions == expected)
    }

    @Test(arguments: [
        // A FIFO, a character device, a block device, a socket of s3fs; digits that could be either.
        ("4516", 0o516), ("8612", 0o644), ("24996", 0o644), ("49572", 0o644), ("4755", 0o755), ("42755", 0o2755),
        ("6755", 0o755), ("10644", 0o644), ("04755", 0o4755), ("2755", 0o2755), ("777777", nil), ("+644", nil),
        ("٣٣١٨٨", nil),
    ])
    func `what may be a FIFO or a device is never set-user-ID`(_ text: String, _ expected: UInt32?) throws {
        #expect(try Self.head([("x-amz-meta-mode", text)]).metadata.permissions == expected)
    }

    @Test(arguments: [
        ("41471", true), ("41453", true), ("33188", false), ("16877", false), ("120777", false), ("x", false),
    ])
    func `a symlink is what s3fs says is one`(_ mode: String, _ expected: Bool) throws {
        #expect(try Self.head([("x-amz-meta-mode", mode)]).isSymlink == expected)
    }

    @Test(arguments: [
        ("488", 0o750), ("511", 0o777), ("448", 0o700), ("493", 0o755), ("17407", 0o1777), ("33188", 0o644),
    ])
    func `a mode beside a ctime is s3fs's, and decimal`(_ text: String, _ expected: UInt32) throws {
        let headers = [("x-amz-meta-mode", text), ("x-amz-meta-ctime", "1795885588")]
        #expect(try Self.head(headers).metadata.permissions == expected)
    }

    @Test func `no mode in decimal digits is taken for octal ones, nor the other way round`() {
        for kind: UInt32 in [0o100000, 0o040000] {
            for permissions: UInt32 in 0...0o7777 {
                let mode = kind | permissions
                guard ObjectHead.permissions(String(mode), isDecimal: false) == permissions,
                    ObjectHead.permissions(String(mode, radix: 8), isDecimal: false) == permissions
                else {
                    Issue.record("\(String(mode, radix: 8))")
                    return
                }
            }
        }
    }

    @Test func `only a checksum of the whole object is one`() throws {
        let sum = ("x-amz-checksum-crc32c", "4waSgw==")
        #expect(try Self.head([sum]).object.digest?.algorithm == .crc32c)
        #expect(try Self.head([sum, ("x-amz-checksum-type", "FULL_OBJECT")]).object.digest != nil)
        #expect(try Self.head([sum, ("x-amz-checksum-type", "COMPOSITE")]).object.digest == nil)
        #expect(try Self.head([("x-amz-checksum-crc32c", "4waSgw==-2")]).object.digest == nil)
        let noted = ("x-amz-meta-md5chksum", "kAFQmDzST7DWlj99KOF/cg==")
        #expect(try Self.head([sum, ("x-amz-checksum-type", "COMPOSITE"), noted]).object.digest?.algorithm == .md5)
    }

    /// Each is of "abc", and comes before those that follow it.
    @Test func `of several checksums the best is taken`() throws {
        let sums: [(String, String, RemoteDigest.Algorithm)] = [
            ("x-amz-checksum-sha256", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", .sha256),
            ("x-amz-checksum-sha1", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", .sha1),
            ("x-amz-checksum-crc64nvme", "BeXKuz/B+us=", .crc64nvme), ("x-amz-checksum-crc32c", "Nks/tw==", .crc32c),
            ("x-amz-checksum-crc32", "NSRBwg==", .crc32), ("x-amz-meta-md5chksum", "kAFQmDzST7DWlj99KOF/cg==", .md5),
        ]
        for first in sums.indices {
            let headers = sums[first...].reversed().map { ($0.0, $0.1) }
            #expect(try Self.head(headers).object.digest?.algorithm == sums[first].2)
        }
    }
}
