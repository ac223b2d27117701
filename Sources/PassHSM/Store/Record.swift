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

    package var state: State {
        didSet { if !isComplete { contentChecksum = nil } }
    }
    package var flags: Flags = []
    /// Raised whenever the content starts anew, so that a sidecar of before is not believed.
    package var epoch: UInt64 = 1
    package var object: RemoteObject {
        didSet { if object != oldValue { reference = nil } }
    }
    /// Where ``object`` is in the store's table; nil when it is not there (yet).
    private(set) var reference: ObjectReference?
    /// Bytes `[0, limit)` may have to come from the remote; lowered by truncation. See ``GranuleLayout/limit``.
    package var limit: Int
    package var granuleSize: Int
    /// What the modification time is to the outside while fills move the lower file's.
    package var modified: RemoteEntry.Time
    /// What the change time is to the outside while the lower file's own is of ``written``; nil: the lower file's own.
    package var changed: RemoteEntry.Time?
    /// When the record of a clean file was written, by the clock just before; nil where that is not kept.
    package var written: RemoteEntry.Time?
    /// CRC32C of the whole content as it came from the remote; nil when it is not known. It says nothing of a dirty file.
    package var contentChecksum: UInt32?
    /// The file that the record belongs to.
    package var identity: FileHandle
    /// One line, at most 200 bytes; empty without the flag `error`.
    package var lastError = "" {
        didSet { lastError = Self.cut(lastError) }
    }

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

    /// What `value` says of the file `identity`, whose object was found at `reference` (nil: elsewhere).
    init(_ value: RecordValue, _ identity: FileHandle, _ object: RemoteObject, at reference: ObjectReference?) {
        state = value.state
        flags = value.flags
        epoch = value.epoch
        self.object = object
        self.reference = reference
        limit = value.limit
        granuleSize = value.granuleSize
        modified = value.modified
        (changed, written) = (value.stamp.changed, value.stamp.written)
        contentChecksum = value.contentChecksum
        self.identity = identity
        lastError = Self.cut(value.lastError)
    }

    /// The same, of an object that is in the table at `reference`; nil: it is not there.
    func at(_ reference: ObjectReference?) -> Record {
        var result = self
        result.reference = reference
        return result
    }

    /// Equal in all that is said of the file, wherever its object is kept.
    package static func == (left: Record, right: Record) -> Bool {
        left.state == right.state && left.flags == right.flags && left.epoch == right.epoch
            && left.object == right.object && left.limit == right.limit && left.granuleSize == right.granuleSize
            && left.modified == right.modified && left.changed == right.changed && left.written == right.written
            && left.contentChecksum == right.contentChecksum && left.identity == right.identity
            && left.lastError == right.lastError
    }

    private static let maxErrorBytes = 200

    /// An error as it is kept: no character of it in part.
    private static func cut(_ error: String) -> String {
        if error.utf8.count <= maxErrorBytes { return error }
        var rest = Substring(error)
        while rest.utf8.count > maxErrorBytes { rest.unicodeScalars.removeLast() }
        return String(rest)
    }

    /// From now on a residency map of before is another one's.
    mutating func beginEpoch() {
        // A disk may say any number; what counts is that it is another one.
        epoch &+= 1
    }

    /// Makes it the record of a file of which nothing is present.
    mutating func forgetContent() {
        state = .offline
        beginEpoch()
        limit = object.size
        flags.remove(.error)
        lastError = ""
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
