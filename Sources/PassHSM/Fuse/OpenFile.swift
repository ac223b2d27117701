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
    private let descriptor: Mutex<Descriptor?>
    /// Reads that wait for a fill. A leaf lock.
    private let waiting = Mutex<Set<FillEngine.Ticket>>([])

    init(inode: Inode, mode: Mode, flags: Int32, descriptor: Descriptor? = nil) {
        self.inode = inode
        self.mode = mode
        self.flags = flags
        self.descriptor = Mutex(descriptor)
    }

    var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }

    /// Nothing but its lock on the file (flock(2)) tells it from other handles.
    var sharesDescriptor: Bool { mode == .cached && flags & (O_SYNC | O_DSYNC) == 0 }

    /// The lower file, opened at the first need: passthrough needs it only for fsync, locks and the like.
    func lower(_ open: () throws(Errno) -> Descriptor) throws(Errno) -> Descriptor {
        if let known = descriptor.withLock({ $0 }) { return known }
        let new = try open()
        return descriptor.withLock { known in
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
