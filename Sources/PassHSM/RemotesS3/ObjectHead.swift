import FoundationEssentials
import HSMCore
import HSMRemotesHTTP
import NIOHTTP1

/// What HeadObject tells: version, size, checksum, and the metadata that other programs keep.
///
/// `x-amz-meta-mtime` is seconds since 1970, with a fraction from rclone and s3fs; `uid` and `gid` are decimal.
package struct ObjectHead: Sendable {
    package let object: RemoteObject
    package let metadata: RemoteEntry.Metadata

    init(_ object: RemoteObject, _ metadata: RemoteEntry.Metadata) {
        self.object = object
        self.metadata = metadata
    }

    /// - Throws: `.remoteFailed` for an answer without ETag or length.
    package init(_ headers: HTTPHeaders, _ key: RemoteKey) throws(FillError) {
        guard let size = headers.first(name: "Content-Length").flatMap({ Int($0) }), size >= 0,
            case .entityTag(let tag) = HTTPVersionTag(headers, size: size)
        else { throw FillError(.io, .remoteFailed, "\(key): the store tells neither a strong ETag nor the size") }
        object = RemoteObject(
            key: key, version: HTTPVersionTag.entityTag(tag).version, size: size, digest: Self.digest(headers))
        func value(_ name: String) -> String? { headers.first(name: "x-amz-meta-\(name)") }
        var metadata = RemoteEntry.Metadata()
        let modified = headers.first(name: "Last-Modified").flatMap { HTTPDate.seconds($0) }
        metadata.modificationTime =
            value("mtime").flatMap { RemoteEntry.Time(decimal: $0) }
            ?? modified.map { RemoteEntry.Time(seconds: $0, nanoseconds: 0) }
        metadata.permissions = value("mode").flatMap { Self.permissions($0) }
        metadata.owner = value("uid").flatMap { UInt32($0) }
        metadata.group = value("gid").flatMap { UInt32($0) }
        self.metadata = metadata
    }

    /// Of a `st_mode`: s3fs writes it in decimal digits, rclone (`--metadata`) in octal ones. Which it is tells the kind of
    /// file in it: no file's or directory's mode in one is such in the other.
    static func permissions(_ text: String) -> UInt32? {
        let kinds: [UInt32] = [0o100000, 0o040000]
        if !text.hasPrefix("0"), let mode = UInt32(text), kinds.contains(mode & ~0o7777) { return mode & 0o7777 }
        return UInt32(text, radix: 8).map { $0 & 0o7777 }
    }

    /// Of the whole object; what is put together of its parts' checksums ends with their count.
    private static func digest(_ headers: HTTPHeaders) -> RemoteDigest? {
        guard headers.first(name: "x-amz-checksum-type")?.uppercased() != "COMPOSITE" else { return nil }
        let names: [(String, RemoteDigest.Algorithm)] = [
            ("x-amz-checksum-sha256", .sha256), ("x-amz-checksum-crc32c", .crc32c),
        ]
        for (name, algorithm) in names {
            guard let text = headers.first(name: name), let bytes = Data(base64Encoded: text) else { continue }
            if let digest = RemoteDigest(algorithm, bytes) { return digest }
        }
        return nil
    }
}
