import FoundationEssentials
import HSMCore
import HSMRemotesHTTP
import NIOHTTP1

/// What HeadObject tells: version, size, checksum, and the metadata that other programs keep.
///
/// `x-amz-meta-mtime` is seconds since 1970, with a fraction from rclone and s3fs; `uid` and `gid` are decimal.
package struct ObjectHead: Sendable {
    package internal(set) var object: RemoteObject
    package let metadata: RemoteEntry.Metadata
    /// The content is a symlink's target, unless the object is a directory's marker: s3fs keeps links so.
    package private(set) var isSymlink = false

    init(_ object: RemoteObject, _ metadata: RemoteEntry.Metadata) {
        self.object = object
        self.metadata = metadata
    }

    /// - Throws: `.remoteFailed` for an answer without ETag or length.
    package init(_ headers: HTTPHeaders, _ key: RemoteKey) throws(FillError) {
        guard let size = headers.first(name: "Content-Length").flatMap({ Int(digits: $0) }),
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
        let mode = value("mode")
        isSymlink = mode.flatMap { UInt32(digits: $0) }.map { $0 & ~0o7777 == 0o120000 } ?? false
        metadata.permissions = mode.flatMap { Self.permissions($0, isDecimal: value("ctime") != nil) }
        metadata.owner = value("uid").flatMap { UInt32(digits: $0) }
        metadata.group = value("gid").flatMap { UInt32(digits: $0) }
        self.metadata = metadata
    }

    /// S_IFMT's values of a regular file and a directory, and of everything else.
    private static let kinds: [UInt32] = [0o100000, 0o040000]
    private static let otherKinds: [UInt32] = [0o010000, 0o020000, 0o060000, 0o120000, 0o140000]

    /// Of a `st_mode`: s3fs writes it in decimal digits, rclone (`--metadata`) in octal ones. Which it is tells the kind of
    /// file in it: no file's or directory's mode in one is such in the other. Of directories s3fs leaves the kind out.
    ///
    /// Set-user-ID and set-group-ID are only those of files and directories, and never read out of digits that could be
    /// those of a FIFO or a device.
    ///
    /// - Parameter isDecimal: there is a ctime too, which s3fs alone writes.
    /// - Returns: nil for what is no mode.
    static func permissions(_ text: String, isDecimal: Bool) -> UInt32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        let decimal = text.hasPrefix("0") ? nil : UInt32(text)
        if let decimal, isDecimal || kinds.contains(decimal & ~0o7777) { return plain(decimal) }
        guard let octal = UInt32(text, radix: 8) else { return decimal.flatMap(plain) }
        let isUncertain = !kinds.contains(octal & ~0o7777) && decimal.map { otherKinds.contains($0 & ~0o7777) } ?? false
        return plain(octal).map { isUncertain ? $0 & 0o1777 : $0 }
    }

    /// The permissions of a mode whose kind there is.
    private static func plain(_ mode: UInt32) -> UInt32? {
        let kind = mode & ~0o7777
        if kind == 0 || kinds.contains(kind) { return mode & 0o7777 }
        return otherKinds.contains(kind) ? mode & 0o1777 : nil
    }

    /// The checksums of whole objects that stores keep ("Checking object integrity" in the S3 user guide), and last what
    /// rclone notes of multipart objects; the better ones first.
    private static let checksums: [(header: String, algorithm: RemoteDigest.Algorithm)] = [
        ("x-amz-checksum-sha256", .sha256), ("x-amz-checksum-sha1", .sha1), ("x-amz-checksum-crc64nvme", .crc64nvme),
        ("x-amz-checksum-crc32c", .crc32c), ("x-amz-checksum-crc32", .crc32), ("x-amz-meta-md5chksum", .md5),
    ]

    /// Of the whole object: what is put together of its parts' checksums ends with their count.
    private static func digest(_ headers: HTTPHeaders) -> RemoteDigest? {
        let isOfParts = headers.first(name: "x-amz-checksum-type")?.uppercased() == "COMPOSITE"
        for (header, algorithm) in checksums where !(isOfParts && header.hasPrefix("x-amz-checksum-")) {
            guard let text = headers.first(name: header), let bytes = Data(base64Encoded: text) else { continue }
            if let digest = RemoteDigest(algorithm, bytes) { return digest }
        }
        return nil
    }
}
