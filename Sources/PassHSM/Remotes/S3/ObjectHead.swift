import FoundationEssentials
import HSMCore
import NIOHTTP1

/// The answer to HeadObject: version, size, checksum, and the metadata that other programs store.
///
/// `x-amz-meta-mtime` is in seconds since 1970; rclone and s3fs write a fraction too. `uid` and `gid` are decimal.
package struct ObjectHead: Sendable {
    package internal(set) var object: RemoteObject
    package let metadata: RemoteEntry.Metadata
    /// Whether the content is a symlink's target, as s3fs stores links. It means nothing for a directory's marker.
    package private(set) var isSymlink = false

    init(_ object: RemoteObject, _ metadata: RemoteEntry.Metadata) {
        self.object = object
        self.metadata = metadata
    }

    /// - Throws: `.remoteFailed` for an answer without ETag or length.
    package init(_ headers: HTTPHeaders, _ key: RemoteKey) throws(FillError) {
        guard let size = headers.first(name: "Content-Length").flatMap({ Int(digits: $0) }),
            case .entityTag(let tag) = HTTPVersionTag(headers, size: size)
        else { throw FillError.remoteFailed("\(key): the store tells neither a strong ETag nor the size") }
        object = RemoteObject(
            key: key, version: HTTPVersionTag.entityTag(tag).version, size: size, digest: Self.digest(headers))
        func value(_ name: String) -> String? { headers.first(name: "x-amz-meta-\(name)") }
        var metadata = RemoteEntry.Metadata()
        let modified = headers.first(name: "Last-Modified").flatMap { HTTPDate.seconds($0) }
        metadata.modificationTime =
            value("mtime").flatMap { RemoteEntry.Time(decimal: $0) }
            ?? modified.map { RemoteEntry.Time(seconds: $0, nanoseconds: 0) }
        let mode = value("mode")
        isSymlink = mode.flatMap { UInt32(digits: $0) }.map { $0 & ~0o7777 == 0o120000 } ?? false
        metadata.permissions = mode.flatMap { Self.permissions($0, isDecimal: value("ctime") != nil) }
        metadata.owner = value("uid").flatMap { UInt32(digits: $0) }
        metadata.group = value("gid").flatMap { UInt32(digits: $0) }
        self.metadata = metadata
    }

    /// The S_IFMT values of a regular file and a directory, and those of all other kinds.
    private static let kinds: [UInt32] = [0o100000, 0o040000]
    private static let otherKinds: [UInt32] = [0o010000, 0o020000, 0o060000, 0o120000, 0o140000]

    /// The permissions of an `st_mode`, which s3fs writes in decimal and rclone (`--metadata`) in octal. The kind of
    /// file in the mode tells which one it is: no mode of a file or directory in one base is one in the other. s3fs
    /// leaves out the kind for directories.
    ///
    /// Set-user-ID and set-group-ID count for files and directories only. They are never taken from digits that could
    /// be the mode of a FIFO or a device.
    ///
    /// - Parameter isDecimal: a ctime is stored too, which only s3fs does.
    /// - Returns: nil when the text is not a mode.
    static func permissions(_ text: String, isDecimal: Bool) -> UInt32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        let decimal = text.hasPrefix("0") ? nil : UInt32(text)
        if let decimal, isDecimal || kinds.contains(decimal & ~0o7777) { return plain(decimal) }
        guard let octal = UInt32(text, radix: 8) else { return decimal.flatMap(plain) }
        let isUncertain = !kinds.contains(octal & ~0o7777) && decimal.map { otherKinds.contains($0 & ~0o7777) } ?? false
        return plain(octal).map { isUncertain ? $0 & 0o1777 : $0 }
    }

    /// The permissions of a mode; nil when it has an unknown kind.
    private static func plain(_ mode: UInt32) -> UInt32? {
        let kind = mode & ~0o7777
        if kind == 0 || kinds.contains(kind) { return mode & 0o7777 }
        return otherKinds.contains(kind) ? mode & 0o1777 : nil
    }

    /// The checksums of whole objects that stores keep ("Checking object integrity" in the S3 user guide), and at the
    /// end the one that rclone stores for multipart objects. The better ones come first.
    private static let checksums: [(header: String, algorithm: RemoteDigest.Algorithm)] = [
        ("x-amz-checksum-sha256", .sha256), ("x-amz-checksum-sha1", .sha1), ("x-amz-checksum-crc64nvme", .crc64nvme),
        ("x-amz-checksum-crc32c", .crc32c), ("x-amz-checksum-crc32", .crc32), ("x-amz-meta-md5chksum", .md5),
    ]

    /// The digest of the whole object. A checksum that is composed from the parts' checksums does not count; it ends
    /// with the number of parts.
    private static func digest(_ headers: HTTPHeaders) -> RemoteDigest? {
        let isOfParts = headers.first(name: "x-amz-checksum-type")?.uppercased() == "COMPOSITE"
        for (header, algorithm) in checksums where !(isOfParts && header.hasPrefix("x-amz-checksum-")) {
            guard let text = headers.first(name: header), let bytes = Data(base64Encoded: text) else { continue }
            if let digest = RemoteDigest(algorithm, bytes) { return digest }
        }
        return nil
    }
}
