/// The name of an object in the remote tier: bytes, because file names are; components are joined by `/`.
package struct RemoteKey: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// For people: invalid UTF-8 is shown as replacement characters.
    package var description: String { String(decoding: bytes, as: UTF8.self) }
}

/// What the remote tier calls one state of an object's content (an ETag, or modification time and size): opaque, at most
/// 255 bytes. Equal versions mean equal content.
package struct RemoteVersion: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Text, or else hexadecimal digits.
    package var description: String {
        if bytes.allSatisfy({ (0x20...0x7e).contains($0) }) { return String(decoding: bytes, as: UTF8.self) }
        return bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// One version of an object in the remote tier.
package struct RemoteObject: Hashable, Sendable {
    package var key: RemoteKey
    package var version: RemoteVersion
    /// Bytes.
    package var size: Int
    /// Of the whole content, where the remote tells it.
    package var digest: RemoteDigest?

    package init(key: RemoteKey, version: RemoteVersion, size: Int, digest: RemoteDigest? = nil) {
        self.key = key
        self.version = version
        self.size = size
        self.digest = digest
    }
}

/// A remote tier: where the content of the files comes from. Every method may be called on any thread, any number of
/// times at once.
package protocol RemoteSource: Sendable {
    /// A URL for people, without secrets.
    var location: String { get }

    /// Bytes that one request should ask for; a multiple of the granule, at most 64 MiB.
    var fetchUnit: Int { get }

    /// The same for a remote that answers at once (``BandwidthEstimator``); a multiple of ``fetchUnit``, which is the default.
    var nearFetchUnit: Int { get }

    /// Hands the bytes of `range` to `deliver`, in order, in pieces of any size.
    ///
    /// A piece is delivered only when it is known to belong to `object.version`; content of another version is never
    /// delivered. The pieces live as long as the call of `deliver`. Ends early when the task is cancelled.
    ///
    /// - Throws: `.remoteChanged` when the object has another version now, `.remoteGone` when it is missing,
    ///   `.remoteFailed` when fewer bytes than asked come or the remote reports an error; what `deliver` throws.
    func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError)

    /// What the remote has under `key` now, and when it was modified; no content.
    ///
    /// - Throws: `.remoteGone` when it is missing, `.remoteChanged` when it is no file any more, `.remoteFailed`.
    func current(_ key: RemoteKey) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time)

    /// Whether the object that was `recorded` is the one that was `found` now, by ``current(_:)`` or ``list(_:)``. By default
    /// when version and size are the same.
    ///
    /// - Parameter isMoved: it was recorded of a copy of this remote elsewhere.
    func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool

    /// What may have changed beside the program, such as files of credentials, is read again before it is next used. Returns
    /// at once; by default there is nothing of the kind.
    func lookAnew()

    /// Walks the whole tree, depth first; each directory's entries stand between its `enter` and its `leave`. The top
    /// directory itself is the first `enter` (with an empty name) and the last `leave`.
    ///
    /// - Throws: `FillError` when the tree cannot be listed at all; what `body` throws. One unreadable entry is reported
    ///   as an event, and the walk goes on.
    func list(_ body: (RemoteEvent) throws -> Void) async throws
}

/// A step of ``RemoteSource/list(_:)``.
package enum RemoteEvent: Sendable {
    case enter(RemoteEntry)
    case entry(RemoteEntry)
    case leave
    case unreadable(RemoteKey, FillError)
}

/// What the remote tier knows about one name.
package struct RemoteEntry: Sendable {
    package enum Kind: Hashable, Sendable {
        case file(RemoteObject)
        case directory
        case symlink(target: [UInt8])
        case fifo
        case socket
        case characterDevice(UInt64)
        case blockDevice(UInt64)
    }

    package struct Time: Hashable, Sendable {
        package var seconds: Int
        package var nanoseconds: Int

        package init(seconds: Int, nanoseconds: Int) {
            self.seconds = seconds
            self.nanoseconds = nanoseconds
        }
    }

    package typealias Attribute = (name: [UInt8], value: [UInt8])

    /// POSIX metadata; nil fields are unknown to the remote, and the importer's defaults are used.
    package struct Metadata: Sendable {
        /// Permission bits, with setuid, setgid and sticky.
        package var permissions: UInt32?
        package var owner: UInt32?
        package var group: UInt32?
        package var accessTime: Time?
        package var modificationTime: Time?
        /// Names without the terminating NUL; POSIX ACLs are among them as `system.posix_acl_*`.
        package var attributes: [Attribute] = []

        package init() {}
    }

    /// The last component, without NUL.
    package var name: [UInt8]
    package var kind: Kind
    package var metadata: Metadata
    /// Equal for the names of one file with several hard links; nil for a file with one name.
    package var linkIdentity: [UInt64]?

    package init(name: [UInt8], kind: Kind, metadata: Metadata, linkIdentity: [UInt64]? = nil) {
        self.name = name
        self.kind = kind
        self.metadata = metadata
        self.linkIdentity = linkIdentity
    }
}

extension RemoteSource {
    package var nearFetchUnit: Int { fetchUnit }
    package func lookAnew() {}
    package func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool {
        recorded.version == found.version && recorded.size == found.size
    }
}
