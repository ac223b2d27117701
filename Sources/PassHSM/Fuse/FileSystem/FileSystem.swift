import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMFuseDoor
import HSMStore
import HSMSystem
import Logging
import Synchronization

/// The file system that the kernel's requests act on: the lower tree, the store, the engine, and the open files and
/// directories.
///
/// It knows neither libfuse nor a device: requests come as values through ``handle(_:_:)``, on any number of threads at
/// once. Each method answers its reply itself. Methods may block on the lower file system, but never on the remote.
/// ARCHITECTURE.md states the lock order.
final class FileSystem: Sendable {
    let store: Store
    let engine: FillEngine
    let options: FuseMount.Options
    let log: Logger
    /// The log takes debug lines. Known here, so that a request costs nothing without them.
    private let logsSteps: Bool
    /// Runs work that must not run on a session's thread.
    let pool: BlockingPool
    let known: KnownInodes
    let files: ManagedFiles<KnownInodes>
    /// The handle of the store's folder.
    private let storeFolder: FileHandle
    let openFiles = HandleTable<OpenFile>()
    let openDirectories = HandleTable<OpenDirectory>()
    let readBuffers = ReadBuffers()
    let openHandles = Atomic<Int>(0)
    /// Threads that got a signal while they waited for a fill. A leaf lock.
    let interrupted = Mutex<[FillEngine.Waiter: pid_t]>([:])
    /// A leaf lock.
    let runners = Mutex(Runners())
    /// How many seconds the kernel may believe names and attributes.
    let timeout: Double
    let streams: DirectoryStreams
    let locks = LockTable()
    /// A leaf lock.
    let passthrough = Mutex(Passthrough(isOn: false, reason: "not mounted"))

    init(
        store: Store, engine: FillEngine, options: FuseMount.Options, pool: BlockingPool, log: Logger
    ) throws(Errno) {
        self.store = store
        self.engine = engine
        self.options = options
        self.pool = pool
        self.log = log
        logsSteps = log.logLevel <= .debug
        timeout = options.cache.timeout
        let limit = Capabilities.descriptorLimit().now
        known = try KnownInodes(store, DescriptorShares(limit: limit))
        files = ManagedFiles(
            store: store, engine: engine, observer: known, isStrict: options.isStrict, pool: pool, log: log)
        streams = DirectoryStreams(limit: min(64, max(4, Capabilities.descriptorReserve(limit: limit) / 8)))
        storeFolder = try store.folderHandle()
    }

    var tree: LowerTree { known.tree }
    var root: Inode { known.root }
    var inodes: InodeTable { known.table }
    var shares: DescriptorShares { known.shares }

    /// Logs a step of the request with this number, at level debug.
    func logStep(_ number: UInt64, _ inode: Inode, _ step: @autoclosure () -> String) {
        logStep(number, inode.handle, step())
    }

    func logStep(_ number: UInt64, _ content: IncompleteFile, _ step: @autoclosure () -> String) {
        logStep(number, content.stored.handle, step())
    }

    private func logStep(_ number: UInt64, _ file: FileHandle, _ step: @autoclosure () -> String) {
        guard logsSteps else { return }
        log.debug("request \(number) \(step())", metadata: ["file": "\(file.name)"])
    }

    // MARK: Reaching the lower file

    /// Opens the inode anew with `flags`. Throws ESTALE when it is gone.
    func open(_ inode: Inode, _ flags: Int32) throws(Errno) -> Descriptor { try known.open(inode, flags) }

    /// The directory of a node id, for calls that take a name in it.
    func directory(_ node: UInt64) throws(Errno) -> Descriptor {
        let inode = try inode(node)
        return try inode === root ? tree.root : open(inode, PASSHSM_O_PATH | O_DIRECTORY)
    }

    /// Whether the name is the store's folder, which is not part of the file system.
    func isHidden(_ name: Name, in parent: UInt64) -> Bool {
        parent == NodeID.root.number && strcmp(name, Store.folder) == 0
    }

    // MARK: Known inodes

    /// An inode to which the kernel gets a reference, and what the answer tells of it.
    struct Reference {
        let inode: Inode
        var entry = Entry()
    }

    /// The inode of a node id from the kernel. An id that another daemon gave out is looked up in the lower tree. Its
    /// inode then gets a reference, because the kernel holds one.
    ///
    /// - Throws: ESTALE when there is no such inode any more, or when there never was one.
    func inode(_ node: UInt64) throws(Errno) -> Inode {
        if node == NodeID.root.number { return root }
        if let known = inodes.find(node) { return known }
        return try reference(findUnknown(node)).inode
    }

    /// Opens (with O_PATH) the inode of a node id that is not in the table.
    ///
    /// The id may be forged. A directory is checked to be in the tree, and a file is checked not to be the store's. No
    /// file system tells whether a file is in the tree or elsewhere on the same file system.
    ///
    /// - Throws: ESTALE when it leads to nothing that the mount may show.
    func findUnknown(_ node: UInt64) throws(Errno) -> Descriptor {
        let file = try tree.open(number: node)
        let status = try file.stat()
        // An unknown file that has lost its last name has no users.
        guard status.st_nlink > 0, try FileHandle(of: file) != root.handle else { throw Errno(rawValue: ESTALE) }
        let isShown = try status.st_mode & S_IFMT == S_IFDIR ? isInTree(file) : !store.owns(status)
        guard isShown else { throw Errno(rawValue: ESTALE) }
        return file
    }

    /// Whether a directory is the top of the mount or below it.
    func isInTree(_ directory: Descriptor) throws(Errno) -> Bool {
        try tree.contains(directory, outside: storeFolder)
    }

    /// Looks up `name` and gives the kernel a reference to it.
    func lookup(_ name: Name, in directory: Descriptor) throws(Errno) -> Reference {
        let file = try Descriptor.open(at: directory.raw, name, PASSHSM_O_PATH | O_NOFOLLOW)
        return try reference(file)
    }

    /// A reference to the inode that `file` is open on (with O_PATH), with one more reference for the kernel.
    func reference(_ file: Descriptor) throws(Errno) -> Reference {
        var (inode, status) = try known.reference(file)
        show(&status, inode)
        var reference = Reference(inode: inode)
        reference.entry.node = inode.node
        reference.entry.generation = UInt64(inode.id.generation)
        reference.entry.attributes = status
        reference.entry.attributeTimeout = attributeTimeout(inode)
        reference.entry.entryTimeout = timeout
        return reference
    }

    /// FORGET. An unknown id is ignored.
    func forget(_ node: UInt64, _ count: UInt64) {
        if let inode = inodes.find(node) { forget(inode, count) }
    }

    /// See ``KnownInodes/forget(_:_:)``.
    func forget(_ inode: Inode, _ count: UInt64) { known.forget(inode, count) }

    // MARK: Attributes

    /// Notes that a user changes the file. From then on its own change time is shown.
    func noteChange(_ inode: Inode) {
        let delay = inode.state.withLock { state in
            defer { state.noteUserChange() }
            return state.ownChangeDelay
        }
        // The wait takes a few milliseconds, and only follows a fill or a release: the next daemon tells a user's
        // change from the daemon's work by time alone.
        if delay > 0 { usleep(UInt32(delay / 1000) + 1) }
    }

    /// The attributes of the inode, as the mount shows them.
    func attributes(_ inode: Inode) throws(Errno) -> stat {
        var status = try inode === root ? tree.root.stat() : open(inode, PASSHSM_O_PATH).stat()
        show(&status, inode)
        return status
    }

    /// Hides the effects of a fill on the lower file. A file that is not complete shows no holes, because sparse-aware
    /// tools would take them for zeros. It shows its own times and not those of the fill.
    private func show(_ status: inout stat, _ inode: Inode) {
        guard inode.isRegular else { return }
        let modified = inode.state.withLock { state -> RemoteEntry.Time? in
            if let change = state.change {
                if let time = change.time(lower: status.st_ctim) {
                    status.st_ctim = time
                } else {
                    state.change = nil
                }
            }
            guard case .incomplete(_, _, let modified) = state.lifecycle.residence else { return nil }
            return state.lifecycle.content?.stored.modified ?? modified
        }
        guard let modified else { return }
        // The formula does not overflow: a user may have made the file 2^63 - 1 bytes long.
        status.st_blocks = status.st_size / 512 + (status.st_size % 512 == 0 ? 0 : 1)
        status.st_mtim = timespec(tv_sec: modified.seconds, tv_nsec: modified.nanoseconds)
    }
}
