import Glibc
import HSMCore
import HSMSystem

/// The record of one file, which is in one extended attribute of the file. FORMAT.md has the format.
package struct Record: Equatable, Sendable {
    package enum State: UInt8, Sendable, CaseIterable {
        /// The file never had a remote copy. Files without a record are local.
        case local = 0
        /// The file is complete; it equals the remote's unless it is `dirty`.
        case dual = 1
        /// Some granules are present; the residency map says which.
        case partial = 2
        /// Nothing is present.
        case offline = 3
        /// The content is being given up, or was when the machine went down: none of it is believed.
        case releasing = 4

        package var name: String { "\(self)" }
    }

    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt16
        package init(rawValue: UInt16) { self.rawValue = rawValue }

        /// The file has, or may have, local changes that the remote does not have.
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
    /// Increased whenever the content starts anew, so that an older residency map is not believed.
    package var epoch: UInt64 = 1
    package var object: RemoteObject {
        didSet { if object != oldValue { reference = nil } }
    }
    /// The place of ``object`` in the store's table; nil when it is not there (yet).
    private(set) var reference: ObjectReference?
    /// Bytes `[0, limit)` may have to come from the remote; a truncation lowers it. See ``GranuleLayout/limit``.
    package var limit: Int
    package var granuleSize: Int
    /// The modification time to show; fills move the lower file's own.
    package var modified: RemoteEntry.Time
    /// The change time to show while the lower file's own is of ``written``; nil: the lower file's own is shown.
    package var changed: RemoteEntry.Time?
    /// The clock just before the record of a clean file was written; nil where it is not kept.
    package var written: RemoteEntry.Time?
    /// CRC32C of the whole content as it came from the remote; nil when it is not known. It tells nothing about a dirty
    /// file.
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

    /// The record of the file `identity`, from its attribute's `value`. `object` was found at `reference` (nil:
    /// elsewhere).
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

    /// The same record, with its object at `reference` in the table; nil: it is not there.
    func at(_ reference: ObjectReference?) -> Record {
        var result = self
        result.reference = reference
        return result
    }

    /// Compares everything except the place where the object is kept.
    package static func == (left: Record, right: Record) -> Bool {
        left.state == right.state && left.flags == right.flags && left.epoch == right.epoch
            && left.object == right.object && left.limit == right.limit && left.granuleSize == right.granuleSize
            && left.modified == right.modified && left.changed == right.changed && left.written == right.written
            && left.contentChecksum == right.contentChecksum && left.identity == right.identity
            && left.lastError == right.lastError
    }

    private static let maxErrorBytes = 200

    /// Cuts an error to its largest size, between two characters.
    private static func cut(_ error: String) -> String {
        if error.utf8.count <= maxErrorBytes { return error }
        var rest = Substring(error)
        while rest.utf8.count > maxErrorBytes { rest.unicodeScalars.removeLast() }
        return String(rest)
    }

    /// Starts an epoch: residency maps of earlier epochs are no longer believed.
    mutating func beginEpoch() {
        // The number on disk may be any; the new one only has to differ.
        epoch &+= 1
    }

    /// Makes this the record of a file of which nothing is present.
    mutating func forgetContent() {
        state = .offline
        beginEpoch()
        limit = object.size
        flags.remove(.error)
        lastError = ""
    }

    package var isComplete: Bool { state == .dual || state == .local }

    /// Whether `time` is the recorded modification time, also on a file system that keeps only whole seconds.
    func isModificationTime(_ time: timespec) -> Bool {
        time.tv_sec == modified.seconds && (time.tv_nsec == modified.nanoseconds || time.tv_nsec == 0)
    }

    /// Whether a complete file was changed unseen since it was recorded as clean, by its size and modification time.
    /// For an empty file only the size counts: its source may give no time.
    package func wasChangedUnseen(_ status: stat) -> Bool {
        guard state == .dual, !flags.contains(.dirty) else { return false }
        return status.st_size != object.size || (object.size > 0 && !isModificationTime(status.st_mtim))
    }

    package var layout: GranuleLayout { GranuleLayout(granuleSize: granuleSize, limit: limit) }
}

/// The reason why the stored facts about a file cannot be used.
package struct RecordError: Error, Hashable, Sendable {
    package let cause: String

    package init(_ cause: String) { self.cause = cause }
}
