import Glibc
import HSMCore

/// What the kernel may have in its page cache of a file that the daemon reads and writes for it; guarded by the inode's
/// state lock.
///
/// The kernel does not drop pages when a modification time moves (FUSE_AUTO_INVAL_DATA is off): it would do so while a WRITE
/// is on its way whose bytes are in the page already. Whoever reads the page again before that WRITE arrives gets what was
/// there before, and the page stays so. What this mount's own handles do keeps the pages right; changes by others the
/// daemon looks for, and drops the pages while no handle can write.
final class CachedPages: @unchecked Sendable {
    // Sendable: used under the lock of its inode's state only. An object, for most inodes never have one.

    /// Some of them.
    enum Part: Sendable {
        case none, all
        /// Of these bytes.
        case range(Range<Int>)
    }

    /// What a change of the content moves.
    struct Stamp: Equatable {
        private let size: Int
        private let seconds: Int
        private let nanoseconds: Int

        init(_ status: stat) {
            size = status.st_size
            (seconds, nanoseconds) = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
        }
    }

    /// They are not the lower file's: it was written through passthrough, or taken to another version.
    var areStale = false
    /// The lower file's when they were last known to be right; nil where nobody looks.
    var known: Stamp?
    /// Pages that were asked for together and answered with an error, and not by themselves since: the kernel may keep
    /// several of them as one, and asks for these together once more.
    var byPages = GranuleSet()
    /// They are being dropped while handles are open; what waits for the end of it.
    private(set) var isDropping = false
    private var waiting: [@Sendable () -> Void] = []

    func beginDrop() { isDropping = true }

    func wait(_ body: @escaping @Sendable () -> Void) { waiting.append(body) }

    /// What waited for the end of the drop, to be called without the lock.
    func endDrop() -> [@Sendable () -> Void] {
        defer { (isDropping, waiting) = (false, []) }
        return waiting
    }
}
