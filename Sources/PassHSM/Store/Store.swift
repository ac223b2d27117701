import CLinux
import Glibc
import HSMCore
import HSMSystem
import Logging
import Synchronization

/// The reason why a lower directory cannot be used: one line for the user.
package struct StoreError: Error, CustomStringConvertible, Sendable {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// The store of a lower directory: a record in each file's attributes, and in `.passhsm/` the residency maps, the
/// configuration and the lock. Safe on every thread.
package final class Store: Sendable {
    /// The folder at the top of the lower directory that a mount never shows. No file of a tree can have this name at
    /// the top, wherever the tree is.
    package static let folder = ".passhsm"
    /// The attribute names that records can have; the configuration says which one the tree uses.
    package static let attributes = ["trusted.passhsm", "user.passhsm"]

    package let tree: LowerTree
    package let layout: Layout
    package let log: Logger
    /// The extended attribute that holds the records of this tree.
    package let attribute: String
    /// `.passhsm/tmp`: for files that are built before they get their name. Emptied when the store is opened for use.
    package let temporary: Descriptor
    let partial: Descriptor
    let session: Session
    let committer: Committer
    /// The previous daemon ended in order, and not by a crash or a kill.
    let endedCleanly: Bool
    private let areUsersBelow = Atomic<Bool>(false)
    private let committedAction = Mutex<CommittedAction?>(nil)
    /// The store's folder.
    let directory: Descriptor
    /// `.passhsm/keys`, which stores of format 1 have; nil: there is none.
    let keys: Descriptor?
    let objects: ObjectTable
    /// The lower directory's path, for people.
    let shown: String
    /// This opening moved files from the top into the tree.
    let hasMovedFiles: Bool
    /// Nil when the store was opened for looking only.
    private let lock: Descriptor?

    /// Opens the store of `path` for use, exclusively: for mounting and importing. Removes the residency maps of files
    /// that are gone.
    ///
    /// - Parameters:
    ///   - create: make `.passhsm` and an empty configuration if there is none, and move files from the top into the tree.
    ///   - purpose: the text that another process gets when it finds the lock taken, such as `mounted on /data`.
    ///   - keepsLeftovers: keep the residency maps of files that are gone, for a ``Verifier``.
    ///   - prepare: called before the first file is opened, because that may depend on it.
    /// - Throws: `StoreError` when `path` is not a directory, was never imported, is in use, or needs privilege.
    package static func open(
        _ path: [CChar], create: Bool, purpose: String, log: Logger, keepsLeftovers: Bool = false,
        prepare: (LowerDirectory) throws(Errno) -> Void = { _ in }
    ) throws(StoreError) -> Store {
        try open(
            path, create: create, purpose: purpose, log: log, committer: Committer(), keepsLeftovers: keepsLeftovers,
            prepare: prepare)
    }

    static func open(
        _ path: [CChar], create: Bool, purpose: String, log: Logger, committer: Committer, keepsLeftovers: Bool = false,
        adopts: Bool = false, prepare: (LowerDirectory) throws(Errno) -> Void = { _ in }
    ) throws(StoreError) -> Store {
        let store = try Store(path, create: create, locked: true, log: log, committer: committer, prepare: prepare)
        store.finalizeTop()
        try store.expectRecords(path, isMovable: adopts)
        store.writeLock(purpose)
        if !keepsLeftovers { store.removeLeftovers() }
        return store
    }

    /// Opens the store of `path` for reading records, also while another process uses it.
    package static func inspect(_ path: [CChar], log: Logger) throws(StoreError) -> Store {
        try Store(path, create: false, locked: false, log: log, committer: Committer())
    }

    /// The configuration of the store of `path`; nil when there is no store yet. Every other failure is an error: there
    /// may be a configuration that says where the content comes from.
    package static func recordedConfiguration(_ path: [CChar]) throws(StoreError) -> StoreConfiguration? {
        let shown = String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let top: Descriptor
        do throws(Errno) { top = try Descriptor.open(path, O_RDONLY | O_DIRECTORY) } catch {
            if error.rawValue == ENOENT { return nil }
            throw StoreError("\(shown): \(error.text)")
        }
        let folder: Descriptor
        do throws(Errno) { folder = try Descriptor.openOwnFolder(at: top, Self.folder) } catch {
            if error.rawValue == ENOENT { return nil }
            throw StoreError(refusal("\(shown)/\(Self.folder)", error))
        }
        return try StoreConfiguration.read(from: folder)
    }

    private init(
        _ path: [CChar], create: Bool, locked: Bool, log: Logger, committer: Committer,
        prepare: (LowerDirectory) throws(Errno) -> Void = { _ in }
    ) throws(StoreError) {
        self.log = log
        self.committer = committer
        shown = String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let lower: LowerDirectory
        do throws(Errno) {
            lower = try LowerDirectory(path: path)
            try prepare(lower)
        } catch {
            throw StoreError("\(shown): \(error.text)")
        }
        if create { try Self.makeFolder(in: lower, shown: shown) }
        directory = try Self.openFolder(in: lower.place, named: lower.original, shown: shown)
        do throws(Errno) {
            lock = locked ? try Self.takeLock(in: directory) : nil
        } catch {
            if error.rawValue == EWOULDBLOCK {
                throw StoreError("\(shown) is in use: \(Self.lockHolder(in: directory))")
            }
            throw StoreError(Self.refusal("\(shown)/\(Self.folder)/lock", error))
        }
        endedCleanly = !locked || !Self.lockHolder(in: directory).contains(Self.mounted)
        do throws(Errno) {
            if locked {
                for name in ["partial", "tmp"] { try Self.makeFolder(at: directory, name) }
            }
            partial = try Descriptor.openOwnFolder(at: directory, "partial")
            keys = try Self.openFolderIfAny(at: directory, "keys")
            temporary = try Descriptor.openOwnFolder(at: directory, "tmp")
            objects = ObjectTable(in: directory)
            _ = try objects.openFolder()
        } catch {
            throw StoreError(Self.refusal("a folder in \(shown)/\(Self.folder)", error))
        }
        var configuration = try StoreConfiguration.read(from: directory)
        let isNew = configuration.attribute.isEmpty
        if isNew {
            guard create else { throw StoreError("\(shown)/\(Self.folder)/config is missing or empty: import again") }
            configuration.attribute = Self.attributes[Self.hasPrivilege ? 0 : 1]
        }
        // Without the privilege every record would be invisible, and every stub would look like a local file of zeros.
        if configuration.attribute == Self.attributes[0] && !Self.hasPrivilege {
            throw StoreError("\(shown) was imported with privilege; its records need CAP_SYS_ADMIN to be read")
        }
        attribute = configuration.attribute
        if locked {
            let relocation = Relocation(lower: lower, folder: directory, shown: shown, log: log)
            hasMovedFiles = try relocation.moveIfNeeded(&configuration, isNew: isNew, mayBegin: create)
        } else {
            hasMovedFiles = false
        }
        layout = configuration.layout
        let top = try Self.openTop(in: directory, of: lower.place, layout, shown: shown)
        do throws(Errno) { tree = try LowerTree(lower, root: top) } catch {
            throw StoreError("\(shown): \(error.text)")
        }
        session = Session.current(of: tree)
    }

    /// Whether attributes of the namespace `trusted` can be used: this needs CAP_SYS_ADMIN of the machine, not of a
    /// container. To all other processes the kernel says that files have no such attributes.
    package static var hasPrivilege: Bool {
        Capabilities.effective().mayAdministrate && Capabilities.isInFirstUserNamespace
    }

    package func configuration() throws(StoreError) -> StoreConfiguration {
        try StoreConfiguration.read(from: directory)
    }

    /// Replaces the configuration atomically; durable when it returns.
    package func save(_ configuration: StoreConfiguration) throws(StoreError) {
        var configuration = configuration
        configuration.attribute = attribute
        configuration.layout = layout
        try configuration.write(to: directory)
    }

    // MARK: Records

    /// The record of the file that `file` is open on (O_PATH will do); nil for a local file.
    ///
    /// - Throws: `RecordError` when the record cannot be believed: it is damaged, or was copied from another file.
    package func record(of file: Descriptor) throws(RecordError) -> Record? {
        guard let (value, identity) = try believedValue(of: file) else { return nil }
        switch value.objectLocation {
        case .inline(let object): return Record(value, identity, object, at: nil)
        case .table(let reference):
            return Record(value, identity, try objects.object(at: reference, size: value.size), at: reference)
        case .keyFile(var object):
            object.key = try longKey(of: identity)
            return Record(value, identity, object, at: nil)
        }
    }

    /// The record of the file that `file` is open on, without its object; nil for a local file.
    ///
    /// - Throws: as ``record(of:)``.
    func believedValue(of file: Descriptor) throws(RecordError) -> (RecordValue, FileHandle)? {
        let bytes: [UInt8]
        do throws(Errno) { bytes = try value(of: file) } catch {
            // Any other error (no /proc, a mount without attributes) taken for this one would make every stub a local
            // file of zeros.
            if error.rawValue == ENODATA { return nil }
            throw RecordError("the record cannot be read: \(error.text)")
        }
        let identity: FileHandle
        do throws(Errno) { identity = try FileHandle(of: file) } catch {
            throw RecordError("the file has no handle: \(error.text)")
        }
        var value = try RecordValue(bytes)
        // A complete file needs no fill, so no fill of it can fail. An older error may still be on the disk.
        if value.state == .dual || value.state == .local {
            value.flags.remove(.error)
            value.lastError = ""
        }
        guard value.owner.isOf(identity) else {
            throw RecordError(
                "the record is of another file, from which this one was copied, moved or restored: see passhsm adopt")
        }
        return (value, identity)
    }

    func value(of file: Descriptor) throws(Errno) -> [UInt8] { try ExtendedAttributes.value(attribute, of: file) }

    func set(_ value: [UInt8], of file: Descriptor) throws(Errno) {
        try value.withBytes { bytes throws(Errno) in try ExtendedAttributes.set(attribute, of: file, to: bytes) }
    }

    /// Sets the record of the file that `file` is open on. The record is durable only after a sync of the file; the
    /// entry that it refers to is durable at once.
    ///
    /// - Returns: the record as a later read would give it. Written once more, its object takes no more space.
    @discardableResult
    package func write(_ record: Record, to file: Descriptor) throws(Errno) -> Record {
        var record = record
        if record.reference == nil && !record.keepsObject {
            let reference = try objects.append(record.object)
            try objects.sync(reference)
            record = record.at(reference)
        }
        do throws(Errno) { try set(record.encoded(record.reference), of: file) } catch {
            // A long value takes a block of its own on ext4, and a full disk has none. The cause is in the log too.
            guard [ENOSPC, EDQUOT].contains(error.rawValue), !record.lastError.isEmpty else { throw error }
            record.lastError = String(record.lastError.prefix { $0 != ":" })
            do throws(Errno) { try set(record.encoded(record.reference), of: file) } catch {
                record.lastError = ""
                try set(record.encoded(record.reference), of: file)
            }
        }
        return record
    }

    /// Sets an action that follows each commit of a file, on the thread that commits. Must be called at most once,
    /// before files are used.
    package func afterCommit(_ action: @escaping @Sendable (FileHandle) -> Void) {
        committedAction.withLock { $0 = CommittedAction(call: action) }
    }

    /// Wraps the closure: a Mutex that holds a bare closure would wrap it once more at every access.
    private struct CommittedAction {
        let call: @Sendable (FileHandle) -> Void
    }

    func committed(_ handle: FileHandle) { committedAction.withLock { $0 }?.call(handle) }

    /// Starts the thread that makes fills durable, if there is none. - Throws: EAGAIN when the system gives no thread.
    package func startCommitting() throws(Errno) { try committer.start() }

    /// Commits everything pending of all files, and returns when it is on disk.
    package func drain() { committer.drain() }

    func forgetResidency(of handle: FileHandle) { _ = unlinkat(partial.raw, handle.name, 0) }

    /// Removes everything in `.passhsm` about a file that is gone.
    package func forget(_ handle: FileHandle) {
        forgetResidency(of: handle)
        if let keys { _ = unlinkat(keys.raw, handle.name, 0) }
    }

    /// The remote key of a record of format 1 whose key did not fit in it.
    func longKey(of identity: FileHandle) throws(RecordError) -> RemoteKey {
        var bytes: [UInt8] = []
        do throws(Errno) {
            guard let keys else { throw Errno(rawValue: ENOENT) }
            let file = try Descriptor.openOwn(at: keys, identity.name, O_RDONLY)
            // A larger file is cut off here, and so its checksum is wrong.
            bytes = [UInt8](repeating: 0, count: min(try file.stat().st_size, 1 << 20))
            _ = try bytes.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: 0) }
        } catch {
            throw RecordError("the file with the record's remote key cannot be read: \(error.text)")
        }
        var reader = ByteReader(bytes)
        guard let checksum = reader.take(UInt32.self), checksum == CRC32C.of(Array(bytes.dropFirst(4))) else {
            throw RecordError("the file with the record's remote key is damaged")
        }
        return RemoteKey(Array(bytes.dropFirst(4)))
    }

    // MARK: The folder

    /// The reason why `place`, which is the folder or something in it, cannot be used. A tree's top may belong to a
    /// user, who can put a folder of his own there: that folder would say where content comes from, and what the
    /// records are.
    static func refusal(_ place: String, _ error: Errno) -> String {
        guard [EPERM, ELOOP, ENOTDIR].contains(error.rawValue) else { return "\(place): \(error.text)" }
        return "\(place) is not of user \(geteuid()) alone (another owner, a link, or writable for others)"
            + ", and is not trusted: run passhsm as the user who imported the tree; if it was copied or restored with "
            + "other owners, first give it and what is directly in it back to that user (chown, chmod go-w)"
    }

    static func makeFolder(at parent: Descriptor, _ name: String) throws(Errno) {
        do throws(Errno) {
            _ = try check { mkdirat(parent.raw, name, 0o700) }
        } catch {
            if error.rawValue != EEXIST { throw error }
        }
    }

    private static func openFolderIfAny(
        at parent: Descriptor, _ name: String
    ) throws(Errno) -> Descriptor? {
        do throws(Errno) { return try Descriptor.openOwnFolder(at: parent, name) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
    }

    /// Whether users reach the lower files themselves, and see and set their times (fanotify). Otherwise a mount hides
    /// the store's work from them.
    package var usersReachLower: Bool { areUsersBelow.load(ordering: .relaxed) }

    /// Says that users reach the lower files. Must be called at most once, before files are used.
    package func letUsersReachLower() { areUsersBelow.store(true, ordering: .relaxed) }

    /// Notes in the lock file that the daemon's work is done, and on disk.
    package func noteEnd() { try? lock?.truncate(to: 0) }

    /// The beginning of a daemon's purpose.
    private static let mounted = "mounted on"

    private static func takeLock(in directory: Descriptor) throws(Errno) -> Descriptor {
        let file = try Descriptor.openOwn(at: directory, "lock", O_RDWR | O_CREAT)
        _ = try check { passhsm_flock(file.raw, LOCK_EX | LOCK_NB) }
        return file
    }

    private func writeLock(_ purpose: String) {
        guard let lock else { return }
        let text = Array("pid \(getpid()), \(purpose)\n".utf8)
        // The text only serves the message of a process that finds the lock taken: a failure changes nothing.
        try? lock.truncate(to: 0)
        text.withUnsafeBytes { try? lock.write($0, at: 0) }
    }

    private static func lockHolder(in directory: Descriptor) -> String {
        guard let file = try? Descriptor.openOwn(at: directory, "lock", O_RDONLY) else { return "" }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = bytes.withUnsafeMutableBytes { (try? file.read(into: $0, at: 0)) ?? 0 }
        return String(decoding: bytes[..<count].prefix { $0 != 10 }, as: UTF8.self)
    }
}
