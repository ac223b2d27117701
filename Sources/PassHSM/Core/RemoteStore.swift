/// The name of an object in the remote tier, as bytes, because file names are bytes. Components are joined by `/`.
package struct RemoteKey: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// For people: invalid UTF-8 is shown as replacement characters.
    package var description: String { String(decoding: bytes, as: UTF8.self) }
}

/// The remote tier's name for one state of an object's content, such as an ETag, or modification time and size. Opaque,
/// at most 255 bytes. Equal versions mean equal content.
package struct RemoteVersion: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// The bytes as text if all are printable ASCII, otherwise as hexadecimal digits.
    package var description: String {
        if bytes.allSatisfy({ (0x20...0x7e).contains($0) }) { return String(decoding: bytes, as: UTF8.self) }
        return bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// One version of an object in the remote tier.
package struct RemoteObject: Hashable, Sendable {
    package var key: RemoteKey
    package var version: RemoteVersion
    /// The size in bytes.
    package var size: Int
    /// The digest of the whole content; nil where the remote does not state one.
    package var digest: RemoteDigest?

    package init(key: RemoteKey, version: RemoteVersion, size: Int, digest: RemoteDigest? = nil) {
        self.key = key
        self.version = version
        self.size = size
        self.digest = digest
    }
}

/// A remote tier, which the content of files comes from. Every method may be called on any thread, any number of times
/// at once.
package protocol RemoteStore: Sendable {
    /// The URL to show to people, without secrets.
    var location: String { get }

    /// How many bytes one request should ask for; a multiple of the granule size, at most 64 MiB.
    var fetchUnit: Int { get }

    /// The same for a remote with a short delay (``BandwidthEstimator``). A multiple of ``fetchUnit``, which is the
    /// default.
    var nearFetchUnit: Int { get }

    /// Passes the bytes of `range` to `deliver`, in order, in pieces of any size. Ends early when the task is
    /// cancelled.
    ///
    /// A piece is delivered only when it is known to belong to `object.version`; content of another version is never
    /// delivered. A piece is valid during the call of `deliver`.
    ///
    /// - Throws: `.remoteChanged` when the object has another version now; `.remoteGone` when it is missing;
    ///   `.remoteFailed` when fewer bytes arrive than were asked for, or the remote reports an error; errors of
    ///   `deliver`.
    func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError)

    /// Asks which version the remote has under `key` now, and when it was modified. Fetches no content.
    ///
    /// - Throws: `.remoteGone` when the object is missing, `.remoteChanged` when it is not a file any more,
    ///   `.remoteFailed`.
    func current(_ key: RemoteKey) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time)

    /// Whether the `recorded` object is the same as the one `found` now by ``current(_:)`` or ``list(_:)``. By default,
    /// when version and size are equal.
    ///
    /// - Parameter isMoved: the object was recorded from a copy of this remote at another place.
    func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool

    /// Forgets what was read from local files, such as credentials, so that they are read again before their next use.
    /// Returns at once. Does nothing by default.
    func lookAnew()

    /// Walks the whole tree, depth first. Each directory's entries come between its `enter` and its `leave`. The top
    /// directory itself is the first `enter` (with an empty name) and the last `leave`.
    ///
    /// - Throws: `FillError` when the tree cannot be listed at all; errors of `body`. An unreadable entry is reported
    ///   as an event, and the walk goes on.
    func list(_ body: (RemoteEvent) throws -> Void) async throws
}

/// A step of ``RemoteStore/list(_:)``.
package enum RemoteEvent: Sendable {
    case enter(RemoteEntry)
    case entry(RemoteEntry)
    case leave
    case unreadable(RemoteKey, FillError)
}

/// One name in the remote tier, with its kind and metadata.
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

    /// A time since 1970.
    package struct Time: Hashable, Sendable {
        package var seconds: Int
        package var nanoseconds: Int

        package init(seconds: Int, nanoseconds: Int) {
            self.seconds = seconds
            self.nanoseconds = nanoseconds
        }
    }

    package typealias Attribute = (name: [UInt8], value: [UInt8])

    /// POSIX metadata. A nil field is unknown to the remote, and the importer's default applies.
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

    /// The last component of the path, without NUL.
    package var name: [UInt8]
    package var kind: Kind
    package var metadata: Metadata
    /// Equal for all hard links to one file; nil for a file with one name.
    package var linkIdentity: [UInt64]?

    package init(name: [UInt8], kind: Kind, metadata: Metadata, linkIdentity: [UInt64]? = nil) {
        self.name = name
        self.kind = kind
        self.metadata = metadata
        self.linkIdentity = linkIdentity
    }
}

extension RemoteStore {
    package var nearFetchUnit: Int { fetchUnit }
    package func lookAnew() {}
    package func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool {
        recorded.version == found.version && recorded.size == found.size
    }
}
