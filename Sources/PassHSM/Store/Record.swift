import Glibc
import HSMCore
import HSMSystem

/// What is recorded about one file, in one extended attribute of it. The format is FORMAT.md's.
package struct Record: Equatable, Sendable {
    package enum State: UInt8, Sendable, CaseIterable {
        /// Never had a remote copy. Files without a record are local.
        case local = 0
        /// Complete; the same as the remote unless `dirty`.
        case dual = 1
        /// Some granules are present; the sidecar says which.
        case partial = 2
        /// Nothing is present.
        case offline = 3
        /// Its content is being given up, or was when the machine went down: nothing of it is believed.
        case releasing = 4

        package var name: String { "\(self)" }
    }

    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt16
        package init(rawValue: UInt16) { self.rawValue = rawValue }

        /// Holds, or may hold, local changes that the remote does not have.
        package static let dirty = Flags(rawValue: 1)
        package static let pinned = Flags(rawValue: 2)
        /// The remote has another version than the recorded one.
        package static let stale = Flags(rawValue: 4)
        /// The remote no longer has the object.
        package static let lost = Flags(rawValue: 8)
        /// The last fill failed; ``Record/lastError`` says why.
        package static let error = Flags(rawValue: 16)

        package var names: [String] {
            let all: [(Flags, String)] = [
                (.dirty, "dirty"), (.pinned, "pinned"), (.stale, "stale"), (.lost, "lost"), (.error, "error"),
            ]
            return all.filter { contains($0.0) }.map(\.1)
        }
    }

    package var state: State
    package var flags: Flags = []
    /// Raised whenever the content starts anew, so that a sidecar of before is not believed.
    package var epoch: UInt64 = 1
    package var object: RemoteObject
    /// Bytes `[0, limit)` may have to come from the remote; lowered by truncation. See ``GranuleLayout/limit``.
    package var limit: Int
    package var granuleSize: Int
    /// What the modification time is to the outside while fills move the lower file's.
    package var modified: RemoteEntry.Time
    /// The file that the record was written for; a copy of the attribute on another inode differs.
    package var identity: FileHandle
    /// One line, at most 200 bytes; empty without the flag `error`.
    package var lastError = ""

    package init(
        state: State, object: RemoteObject, modified: RemoteEntry.Time, identity: FileHandle,
        granuleSize: Int = GranuleLayout.defaultGranuleSize
    ) {
        self.state = state
        self.object = object
        limit = object.size
        self.granuleSize = granuleSize
        self.modified = modified
        self.identity = identity
    }

    package var isComplete: Bool { state == .dual || state == .local }

    /// Whether the lower file's own time is the recorded one, also on a file system that keeps whole seconds only.
    func isModificationTime(_ time: timespec) -> Bool {
        time.tv_sec == modified.seconds && (time.tv_nsec == modified.nanoseconds || time.tv_nsec == 0)
    }

    /// Whether a complete file was changed unseen since it was recorded as clean, by its size and modification time. An empty
    /// one by its size alone: its source may know no time.
    package func wasChangedUnseen(_ status: stat) -> Bool {
        guard state == .dual, !flags.contains(.dirty) else { return false }
        return status.st_size != object.size || (object.size > 0 && !isModificationTime(status.st_mtim))
    }

    package var layout: GranuleLayout { GranuleLayout(granuleSize: granuleSize, limit: limit) }
}

/// Why what is stored about a file cannot be used.
package struct RecordError: Error, Hashable, Sendable {
    package let cause: String

    package init(_ cause: String) { self.cause = cause }
}

// MARK: The format

extension Record {
    private static let magic = Array("PHSM".utf8)
    private static let version: UInt16 = 1
    private static let checksumOffset = 8
    /// Keys longer than this are kept in a file of their own, because ext4 has about 4,000 bytes for all attributes of an
    /// inode.
    static let longestInlineKey = 1024
    private static let longestError = 200
    private static let keyIsElsewhere: UInt16 = 0xffff

    /// An error as it is kept: no character of it in part.
    private static func cut(_ error: String) -> String {
        var rest = Substring(error)
        while rest.utf8.count > longestError { rest.unicodeScalars.removeLast() }
        return String(rest)
    }

    /// The attribute's value. A key of more than ``longestInlineKey`` bytes is left out.
    package func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.put(Self.magic)
        writer.put(Self.version)
        writer.put(UInt16(0))
        writer.put(UInt32(0))
        writer.put(state.rawValue)
        writer.put(UInt8(granuleSize.trailingZeroBitCount))
        writer.put(flags.rawValue)
        writer.put(epoch)
        writer.put(Int64(object.size))
        writer.put(Int64(limit))
        writer.put(Int64(modified.seconds))
        writer.put(UInt32(modified.nanoseconds))
        writer.put(identity.type)
        let identityBytes = identity.bytes
        writer.put(UInt8(identityBytes.count))
        writer.put(identityBytes)
        writer.put(UInt8(min(object.version.bytes.count, 255)))
        writer.put(object.version.bytes.prefix(255))
        let error = Array(Self.cut(lastError).utf8)
        writer.put(UInt8(error.count))
        writer.put(error)
        if object.key.bytes.count > Self.longestInlineKey {
            writer.put(Self.keyIsElsewhere)
        } else {
            writer.put(UInt16(object.key.bytes.count))
            writer.put(object.key.bytes)
        }
        if let digest = object.digest {
            writer.put(digest.algorithm.rawValue)
            writer.put(digest.bytes)
        }
        writer.replace(at: Self.checksumOffset, with: CRC32C.of(writer.bytes))
        return writer.bytes
    }

    /// From now on a residency map of before is another one's.
    mutating func beginEpoch() {
        // A disk may say any number; what counts is that it is another one.
        epoch &+= 1
    }

    /// - Parameter longKey: looks up the key that the attribute had no room for.
    /// - Throws: `RecordError` for anything but a whole record of a known version with the right checksum.
    package init(
        encoded bytes: [UInt8], longKey: () throws(RecordError) -> RemoteKey
    ) throws(RecordError) {
        var reader = ByteReader(bytes)
        guard reader.take(4).map(Array.init) == Self.magic, let version = reader.take(UInt16.self) else {
            throw RecordError("the record is not one of PassHSM's")
        }
        guard version == Self.version else { throw RecordError("the record has the unknown version \(version)") }
        guard bytes.count >= Self.checksumOffset + 4 else { throw RecordError("the record is cut off") }
        var unsigned = bytes
        for index in Self.checksumOffset..<Self.checksumOffset + 4 { unsigned[index] = 0 }
        guard let _ = reader.take(UInt16.self), reader.take(UInt32.self) == CRC32C.of(unsigned) else {
            throw RecordError("the record's checksum is wrong")
        }
        guard let state = reader.take(UInt8.self).flatMap(State.init(rawValue:)),
            let shift = reader.take(UInt8.self), (9...40).contains(shift), let flags = reader.take(UInt16.self),
            let epoch = reader.take(UInt64.self), let size = reader.take(Int64.self), size >= 0,
            let limit = reader.take(Int64.self), (0...size).contains(limit), let seconds = reader.take(Int64.self),
            let nanoseconds = reader.take(UInt32.self), nanoseconds < 1_000_000_000, let type = reader.take(Int32.self),
            let identity = reader.takeCounted().flatMap({ FileHandle(type: type, bytes: $0) }),
            let versionBytes = reader.takeCounted(), let error = reader.takeCounted(),
            let keyCount = reader.take(UInt16.self)
        else { throw RecordError("the record is cut off") }
        let key: RemoteKey
        if keyCount == Self.keyIsElsewhere {
            key = try longKey()
        } else if let keyBytes = reader.take(Int(keyCount)) {
            key = RemoteKey(Array(keyBytes))
        } else {
            throw RecordError("the record is cut off")
        }
        var digest: RemoteDigest?
        if let number = reader.take(UInt8.self) {
            guard let algorithm = RemoteDigest.Algorithm(rawValue: number), let bytes = reader.take(algorithm.count)
            else { throw RecordError("the record has an unknown digest") }
            digest = RemoteDigest(algorithm, bytes)
        }
        self.state = state
        self.flags = Flags(rawValue: flags)
        self.epoch = epoch
        object = RemoteObject(key: key, version: RemoteVersion(Array(versionBytes)), size: Int(size), digest: digest)
        self.limit = Int(limit)
        granuleSize = 1 << Int(shift)
        modified = RemoteEntry.Time(seconds: Int(seconds), nanoseconds: Int(nanoseconds))
        self.identity = identity
        lastError = Self.cut(String(decoding: error, as: UTF8.self))
    }
}

extension ByteReader {
    /// Bytes behind their count in one byte.
    fileprivate mutating func takeCounted() -> ArraySlice<UInt8>? {
        guard let count = take(UInt8.self) else { return nil }
        return take(Int(count))
    }
}
