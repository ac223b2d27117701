import CFuse
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// One known inode of the lower tree. The kernel knows it by its address, and holds it by its lookup count.
final class Inode: Sendable {
    let handle: FileHandle
    /// Tells apart the inodes that had the same address.
    let generation: UInt64
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

    init(handle: FileHandle, generation: UInt64, type: mode_t, path: Descriptor?, residence: Residence) {
        self.handle = handle
        self.generation = generation
        self.type = type
        self.path = path
        state = Mutex(State(residence: residence))
    }

    var isRegular: Bool { type == S_IFREG }

    /// The number by which the kernel knows the inode.
    var node: fuse_ino_t { fuse_ino_t(UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque())) }

    /// The inode of a number that the kernel got from ``node`` and has not forgotten.
    static func of(_ node: fuse_ino_t) -> Inode {
        guard let pointer = UnsafeRawPointer(bitPattern: UInt(node)) else {
            preconditionFailure("the kernel sent the node id 0")
        }
        return Unmanaged<Inode>.fromOpaque(pointer).takeUnretainedValue()
    }
}

/// The inodes that the kernel knows, by file handle: a reused inode number has another handle. It holds them for the kernel.
///
/// An inode that the kernel has forgotten stays while its incomplete file is in use: there must never be two objects for
/// one file. So does one whose dirty flag may be taken back when its last mapping is gone.
final class InodeTable: Sendable {
    private static let shardCount = 16
    private let shards: [Shard]
    /// Those that are looked at once a second: a look at all would be felt with a million of them. A leaf lock.
    private let watched = NIOLockedValueBox<[ObjectIdentifier: Inode]>([:])
    private let lastGeneration = Atomic<UInt64>(0)

    private final class Shard: Sendable {
        /// Nothing but `Inode.state` is taken while it is held.
        let inodes = Mutex<[FileHandle: Inode]>([:])
    }

    init() { shards = (0..<Self.shardCount).map { _ in Shard() } }

    var count: Int { shards.reduce(0) { $0 + $1.inodes.withLock(\.count) } }

    private func shard(_ handle: FileHandle) -> Shard {
        shards[Int(UInt(bitPattern: handle.hashValue) % UInt(Self.shardCount))]
    }

    /// The inode if it is known, without a reference for the kernel.
    func find(_ handle: FileHandle) -> Inode? { shard(handle).inodes.withLock { $0[handle] } }

    /// The known inode with one more reference; nil when it is unknown.
    func reference(_ handle: FileHandle) -> Inode? {
        shard(handle).inodes.withLock { inodes in
            inodes[handle]?.lookups += 1
            return inodes[handle]
        }
    }

    /// The inode with one more reference: the known one, or else the one that `make` makes.
    func insert(_ handle: FileHandle, _ make: (_ generation: UInt64) -> Inode) -> Inode {
        let new = make(lastGeneration.wrappingAdd(1, ordering: .relaxed).newValue)
        return shard(handle).inodes.withLock { inodes in
            let inode = inodes[handle] ?? new
            inodes[handle] = inode
            inode.lookups += 1
            return inode
        }
    }

    /// Takes back `count` references; true when the inode is gone from the table, because nothing needs it any more.
    func forget(_ inode: Inode, _ count: UInt64) -> Bool {
        shard(inode.handle).inodes.withLock { inodes in
            inode.lookups -= min(count, inode.lookups)
            let isNeeded = inode.lookups > 0 || inode.state.withLock(\.isInUse)
            if isNeeded || inodes[inode.handle] !== inode { return false }
            inodes[inode.handle] = nil
            return true
        }
    }

    /// To be called after ``Inode/State/isWatched`` became true.
    func watch(_ inode: Inode) { watched.withLockedValue { $0[ObjectIdentifier(inode)] = inode } }

    /// The watched inodes, which are not watched any more: who is in need of it is to be watched again.
    func takeWatched() -> [Inode] {
        watched.withLockedValue { all in
            defer { all = [:] }
            return Array(all.values)
        }
    }

    func count(where filter: (Inode) -> Bool) -> Int {
        shards.reduce(0) { $0 + $1.inodes.withLock { $0.values.count(where: filter) } }
    }
}
