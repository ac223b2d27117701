import CLinux
import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// One open file: the object behind the kernel's file handle, from OPEN to RELEASE.
final class OpenFile: Sendable {
    enum Mode: Sendable {
        /// The kernel reads and writes the lower file itself.
        case passthrough
        /// The daemon gets the reads and writes, through the kernel's page cache.
        case cached
    }

    let inode: Inode
    let mode: Mode
    /// The flags of open(2), without those that the open has dealt with.
    let flags: Int32
    /// The lower file, open for all handles of the inode with the same flags; nil with passthrough.
    private let shared: Descriptor?
    private let own = Mutex<Descriptor?>(nil)
    /// A user asked for a lock through this handle. The lock ends with the handle.
    let usesLocks = Atomic<Bool>(false)
    /// Reads that wait for a fill. A leaf lock.
    private let waiting = Mutex<Set<FillEngine.Waiter>>([])
    /// A leaf lock.
    let behind = Mutex(PagesBehind())

    init(inode: Inode, mode: Mode, flags: Int32, shared: Descriptor? = nil) {
        self.inode = inode
        self.mode = mode
        self.flags = flags
        self.shared = shared
    }

    var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }
    /// Whether the lower file itself can be mapped for writing. mmap(2) wants a descriptor that reads as well.
    var canBeMapped: Bool { mode == .passthrough && flags & O_ACCMODE == O_RDWR }

    /// The lower file. With passthrough it is opened at the first need, for fsync and the like.
    ///
    /// - Parameter isKept: whether a new descriptor may stay open as long as the handle. Otherwise the file is opened
    ///   anew at each need.
    func lower(
        _ open: () throws(Errno) -> Descriptor, isKept: (Descriptor) -> Bool
    ) throws(Errno) -> Descriptor {
        if let shared { return shared }
        if let known = own.withLock({ $0 }) { return known }
        let new = try open()
        if !isKept(new) { return new }
        return own.withLock { known in
            let result = known ?? new
            known = result
            return result
        }
    }

    func startedWaiting(_ waiter: FillEngine.Waiter) { waiting.withLock { _ = $0.insert(waiter) } }
    func stoppedWaiting(_ waiter: FillEngine.Waiter) { waiting.withLock { _ = $0.remove(waiter) } }
    var waiters: Set<FillEngine.Waiter> { waiting.withLock { $0 } }

    /// The mode that is part of the handle's number.
    var openMode: OpenMode {
        var result = OpenMode(rawValue: UInt8(flags & O_ACCMODE))
        if flags & O_DSYNC != 0 { result.insert(.synchronousData) }
        if flags & O_SYNC == O_SYNC { result.insert(.synchronous) }
        if flags & PASSHSM_O_NOATIME != 0 { result.insert(.keepsAccessTime) }
        if flags & O_APPEND != 0 { result.insert(.appends) }
        if mode == .cached { result.insert(.cached) }
        return result
    }
}
