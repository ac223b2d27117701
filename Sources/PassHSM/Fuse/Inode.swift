import CFuse
import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Synchronization

/// One known inode of the lower tree. The kernel knows it by its node id, and holds it by its lookup count.
final class Inode: ManagedFile {
    let handle: FileHandle
    let id: NodeID
    /// S_IFREG, S_IFDIR and so on.
    let type: mode_t
    /// O_PATH on the inode where handles cannot be opened; nil otherwise.
    let path: Descriptor?
    /// References that the kernel holds; guarded by the table's shard.
    nonisolated(unsafe) var lookups: UInt64 = 0
    /// A leaf lock: nothing is called and no other lock taken while it is held.
    let state: Mutex<State>

    struct State: ManagedState {
        var lifecycle: FileLifecycle
        var backing = Backing()
        var descriptors = Descriptors()
        var mapping = Mapping()
        /// What the kernel may have in its page cache; nil before the first cached handle.
        var pages: CachedPages?
        /// Hides that the daemon's own work moves the change time; nil when the lower file's own is shown.
        var change: ShownChange?
        /// A name of the file was removed through this mount.
        var isUnlinked = false
        /// The lower file when it has no name any more: its handle leads to it for as long as this is open.
        var nameless: Nameless?

        /// Something is still to be done with the file, and only this inode knows.
        var isInUse: Bool { lifecycle.isNeeded || mapping.isPossible }

        /// Looked at once a second.
        var isWatched: Bool {
            lifecycle.content != nil || lifecycle.mark != nil || lifecycle.handles.served > 0 || mapping.mayBeLeft
        }

        /// The shares, when nothing is left that they count.
        mutating func takeUnusedShares() -> [DescriptorShares.Share] {
            var ended: [DescriptorShares.Share] = []
            if lifecycle.content == nil && lifecycle.handles.served == 0 { swap(&ended, &descriptors.shares) }
            return ended
        }
    }

    /// The lower file as the kernel has it registered for passthrough. The kernel refuses passthrough while a cached handle is
    /// open, and the reverse (fs/fuse/iomode.c): cached handles are the lifecycle's served ones, the others its direct ones.
    struct Backing {
        /// The kernel's id, 0 for none.
        var id: Int32 = 0
        /// Opened since the ids were last looked through.
        var wasUsed = false
    }

    /// What the daemon has open of the lower file.
    struct Descriptors {
        /// What open cached handles share of the lower file, by the flags it was opened with: a descriptor each would be the
        /// end of the daemon's before it is the end of its users'.
        var shared: [Int32: SharedDescriptor] = [:]
        /// What the content's descriptor and `shared` are counted as; kept as long as one of them.
        var shares: [DescriptorShares.Share] = []

        /// The lower file as some cached handle has it open.
        var any: Descriptor? { shared.values.lazy.compactMap(\.descriptor).first }
    }

    /// Open for as long as a handle holds it.
    struct SharedDescriptor {
        weak var descriptor: Descriptor?
    }

    /// Passthrough handles that can be mapped for writing.
    struct Mapping {
        /// Those that are open, and how many there ever were.
        var handles: Int32 = 0
        var opens: UInt32 = 0
        /// Stores through such a mapping may move the file's times, and tell nobody.
        var isPossible = false

        /// What could be mapped is closed.
        var mayBeLeft: Bool { isPossible && handles == 0 }
    }

    /// An object, because most inodes never have one.
    final class Nameless: Sendable {
        private let lower: Descriptor
        private let share: DescriptorShares.Share?

        init(_ lower: Descriptor, _ share: DescriptorShares.Share?) { (self.lower, self.share) = (lower, share) }
    }

    /// - Parameter change: what was to be shown when it was last known.
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
    var node: fuse_ino_t { id.number }
}

/// How the kernel calls an inode. A handle that somebody has of it (name_to_handle_at(2), NFS) consists of both.
struct NodeID: Sendable {
    var number: fuse_ino_t
    /// Tells apart the inodes that have had the number.
    var generation: UInt32

    /// The top directory's; the kernel wants its generation to be 0.
    static let root = NodeID(number: fuse_ino_t(FUSE_ROOT_ID), generation: 0)
}
