import CFuse
import CLinux
import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// One open file: what the kernel's file handle stands for, from OPEN to RELEASE.
final class OpenFile: Sendable {
    enum Mode: Sendable {
        /// The kernel reads and writes the lower file itself.
        case passthrough
        /// Reads and writes come to the daemon, through the kernel's page cache.
        case cached
    }

    let inode: Inode
    let mode: Mode
    /// As open(2) got them, without those that were dealt with at open.
    let flags: Int32
    /// The lower file, open for all handles of the inode with the same flags; nil with passthrough.
    private let shared: Descriptor?
    private let own = Mutex<Descriptor?>(nil)
    /// A lock was asked for: it goes with the handle.
    let usesLocks = Atomic<Bool>(false)
    /// Reads that wait for a fill. A leaf lock.
    private let waiting = Mutex<Set<FillEngine.Ticket>>([])
    /// A leaf lock.
    let behind = Mutex(PagesBehind())

    init(inode: Inode, mode: Mode, flags: Int32, shared: Descriptor? = nil) {
        self.inode = inode
        self.mode = mode
        self.flags = flags
        self.shared = shared
    }

    var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }
    /// For writing, of the lower file itself: mmap(2) wants a descriptor that reads as well.
    var canBeMapped: Bool { mode == .passthrough && flags & O_ACCMODE == O_RDWR }

    /// The lower file; with passthrough opened at the first need, for fsync and the like.
    ///
    /// - Parameter isKept: whether a descriptor that was opened may stay open as long as the handle; otherwise it is opened
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

    func startedWaiting(_ ticket: FillEngine.Ticket) { waiting.withLock { _ = $0.insert(ticket) } }
    func stoppedWaiting(_ ticket: FillEngine.Ticket) { waiting.withLock { _ = $0.remove(ticket) } }
    var waitingTickets: Set<FillEngine.Ticket> { waiting.withLock { $0 } }

    /// What its number says.
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
