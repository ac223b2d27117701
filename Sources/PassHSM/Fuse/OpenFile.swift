import CFuse
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

    /// The number for fuse_file_info.fh; holds a reference until ``release(_:)``.
    func retained() -> UInt64 { UInt64(UInt(bitPattern: Unmanaged.passRetained(self).toOpaque())) }

    static func of(_ number: UInt64) -> OpenFile {
        guard let pointer = UnsafeRawPointer(bitPattern: UInt(number)) else {
            preconditionFailure("the kernel sent the file handle 0")
        }
        return Unmanaged<OpenFile>.fromOpaque(pointer).takeUnretainedValue()
    }

    static func release(_ number: UInt64) { Unmanaged.passUnretained(of(number)).release() }
}
