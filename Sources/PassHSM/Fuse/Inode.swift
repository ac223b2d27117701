import CFuse
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Synchronization

/// One known inode of the lower tree. The kernel knows it by its node id, and holds it by its lookup count.
final class Inode: Sendable {
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

    struct State {
        var residence: Residence
        /// Set while an incomplete file is in use: from the first open or change to the last release.
        var file: IncompleteFile?
        /// Open handles by mode. The kernel refuses one mode while the other is in use (fs/fuse/iomode.c).
        var cachedOpens = 0
        var passthroughOpens = 0
        var writers = 0
        /// Operations without a handle that use `file`.
        var users = 0
        /// How many there have been.
        var uses = 0
        /// The kernel's id of the registered lower file, 0 for none.
        var backingID: Int32 = 0
        /// Opened since the backing ids were last looked through.
        var wasUsed = false
        /// What open cached handles share of the lower file, by the flags it was opened with: a descriptor each would be the
        /// end of the daemon's before it is the end of its users'.
        var shared: [Int32: SharedDescriptor] = [:]
        /// What the kernel may have in its page cache; nil before the first cached handle.
        var pages: CachedPages?
        /// Open passthrough handles that can be mapped for writing, and how many there ever were.
        var mappers = 0
        var mapperOpens = 0
        /// Stores through such a mapping may move the file's times, and tell nobody.
        var mayBeMapped = false
        /// Set when the dirty flag was only set because the file was opened for writing.
        var dirtyMark: DirtyMark?
        /// Hides that the daemon's own work moves the change time; nil when the lower file's own is shown.
        var change: ShownChange?
        /// A name of the file was removed through this mount.
        var isUnlinked = false
        /// The lower file when it has no name any more: its handle leads to it for as long as this is open.
        var nameless: (Descriptor, DescriptorShares.Share?)?
        /// What `file` and `shared` are counted as; kept as long as one of them.
        var shares: [DescriptorShares.Share] = []

        /// Something is still to be done with the file, and only this inode knows.
        var isInUse: Bool { file != nil || users > 0 || dirtyMark != nil || mayBeMapped }

        /// Looked at once a second.
        var isWatched: Bool { file != nil || dirtyMark != nil || cachedOpens > 0 || mayHaveLeftMapping }

        /// What could be mapped is closed.
        var mayHaveLeftMapping: Bool { mayBeMapped && mappers == 0 }

        /// By its record; one that cannot be believed is neither complete nor incomplete.
        var isIncomplete: Bool { if case .incomplete = residence { true } else { false } }

        /// Nothing is left to be done for its content.
        var isComplete: Bool {
            switch residence {
            case .local, .dual: file == nil
            case .incomplete, .unknown: false
            }
        }

        /// The lower file as some cached handle has it open.
        var anyShared: Descriptor? { shared.values.lazy.compactMap(\.descriptor).first }

        /// To be ended by ``FileSystem/endUse(_:)``.
        mutating func addUser() {
            users += 1
            uses += 1
        }
    }

    /// Open for as long as a handle holds it.
    struct SharedDescriptor {
        weak var descriptor: Descriptor?
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
        state = Mutex(State(residence: residence, change: change))
    }

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
