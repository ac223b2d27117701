import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Synchronization

/// One known inode of the lower tree. The kernel knows it by its node id, and its lookup count keeps it alive.
final class Inode: ManagedFile {
    let handle: FileHandle
    let id: NodeID
    /// S_IFREG, S_IFDIR and so on.
    let type: mode_t
    /// O_PATH on the inode where handles cannot be opened; nil otherwise.
    let path: Descriptor?
    /// How many references the kernel holds. Guarded by the table's shard.
    nonisolated(unsafe) var lookups: UInt64 = 0
    /// A leaf lock: while it is held, no other code is called and no other lock is taken.
    let state: Mutex<State>

    struct State: ManagedState {
        var lifecycle: FileLifecycle
        var backing = Backing()
        var descriptors = Descriptors()
        var mapping = Mapping()
        /// The pages that the kernel may have in its page cache; nil before the first cached handle.
        var pages: CachedPages?
        /// Hides that the daemon's own work moves the change time; nil when the lower file's own change time is shown.
        var change: ShownChange?
        /// A name of the file was removed through this mount.
        var isUnlinked = false
        /// The lower file when it no longer has a name. Its handle works for as long as this is open.
        var nameless: Nameless?

        /// Whether work on the file is still to be done that only this inode knows of.
        var isInUse: Bool { lifecycle.isNeeded || mapping.isPossible }

        /// Whether the inode is to be looked at once a second.
        var isWatched: Bool {
            lifecycle.content != nil || lifecycle.mark != nil || lifecycle.handles.served > 0 || mapping.mayBeLeft
        }

        /// Takes the shares when no descriptor that they count is left.
        mutating func takeUnusedShares() -> [DescriptorShares.Share] {
            var ended: [DescriptorShares.Share] = []
            if lifecycle.content == nil && lifecycle.handles.served == 0 { swap(&ended, &descriptors.shares) }
            return ended
        }
    }

    /// The lower file as the kernel has it registered for passthrough. The kernel refuses passthrough while a cached
    /// handle is open, and the reverse (fs/fuse/iomode.c). The lifecycle counts cached handles as served, and
    /// passthrough handles as direct.
    struct Backing {
        /// The kernel's id, 0 for none.
        var id: Int32 = 0
        /// The file was opened since the clock's hand last passed its id.
        var wasUsed = false
    }

    /// The daemon's open descriptors of the lower file.
    struct Descriptors {
        /// The descriptors that open cached handles share, by the flags of their open. One descriptor for each handle
        /// would exhaust the daemon's limit before the users' limits.
        var shared: [Int32: SharedDescriptor] = [:]
        /// The shares that count the content's descriptor and `shared`. They are kept while one of these descriptors
        /// is.
        var shares: [DescriptorShares.Share] = []

        /// The lower file as one of the cached handles has it open.
        var any: Descriptor? { shared.values.lazy.compactMap(\.descriptor).first }
    }

    /// Open for as long as a handle holds it.
    struct SharedDescriptor {
        weak var descriptor: Descriptor?
    }

    /// Passthrough handles that can be mapped for writing.
    struct Mapping {
        /// How many are open, and how many there ever were.
        var handles: Int32 = 0
        var opens: UInt32 = 0
        /// Stores through such a mapping may move the file's times, and the daemon does not hear of them.
        var isPossible = false

        /// All handles that can be mapped are closed, but a mapping may be left.
        var mayBeLeft: Bool { isPossible && handles == 0 }
    }

    /// An object, because most inodes never have one.
    final class Nameless: Sendable {
        private let lower: Descriptor
        private let share: DescriptorShares.Share?

        init(_ lower: Descriptor, _ share: DescriptorShares.Share?) { (self.lower, self.share) = (lower, share) }
    }

    /// - Parameter change: the change time to show, as it was last known.
    init(
        handle: FileHandle, id: NodeID, type: mode_t, path: Descriptor?, residence: Residence,
        change: ShownChange? = nil
    ) {
        self.handle = handle
        self.id = id
        self.type = type
        self.path = path
        state = Mutex(State(lifecycle: FileLifecycle(residence), change: change))
    }

    func withState<Result: ~Copyable, Failure>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try state.withLock { state throws(Failure) in try body(&state) }
    }

    /// The content while the file is active.
    var content: IncompleteFile? { state.withLock { $0.lifecycle.content } }

    var isRegular: Bool { type == S_IFREG }

    /// The number by which the kernel knows the inode.
    var node: UInt64 { id.number }
}

/// The kernel's name for an inode. A file handle that a user has of it (name_to_handle_at(2), NFS) consists of both
/// fields.
struct NodeID: Sendable {
    var number: UInt64
    /// Tells apart the inodes that have had the number.
    var generation: UInt32

    /// The top directory's id (FUSE_ROOT_ID). The kernel wants its generation to be 0.
    static let root = NodeID(number: 1, generation: 0)
}
