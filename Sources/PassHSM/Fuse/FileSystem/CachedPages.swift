import Glibc
import HSMCore

/// The pages that the kernel may have in its page cache of a file that the daemon reads and writes for it. Guarded by
/// the inode's state lock.
///
/// The kernel does not drop pages when a modification time moves, because FUSE_AUTO_INVAL_DATA is off. With it, the
/// kernel would also drop a page while a WRITE with the page's new bytes is under way. A reader that reads the page
/// again before that WRITE arrives would get the old bytes, and the page would keep them. Changes through this mount's
/// own handles keep the pages right. The daemon itself looks for changes by others, and drops the pages while no handle
/// can write.
final class CachedPages: @unchecked Sendable {
    // Sendable: used only under the lock of its inode's state. It is an object because most inodes never have one.

    /// Which of the pages are meant.
    enum Part: Sendable {
        case none, all
        /// The pages of these bytes.
        case range(Range<Int>)
    }

    /// The attributes of the lower file that a change of its content moves.
    struct Stamp: Equatable {
        private let size: Int
        private let seconds: Int
        private let nanoseconds: Int

        init(_ status: stat) {
            size = status.st_size
            (seconds, nanoseconds) = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
        }
    }

    /// The pages differ from the lower file: it was written through passthrough, or switched to another version, or its
    /// content was found wrong.
    var areStale = false
    /// The lower file's stamp when the pages were last known to be right; nil when the daemon does not look for
    /// changes.
    var known: Stamp?
    /// Pages of READs that were answered with an error, until the kernel asks for them singly. The kernel may keep
    /// several of them as one large page, and then asks for these together again.
    var byPages = GranuleSet()
    /// The pages are being dropped while handles are open. `waiting` holds the work that waits for the end of the drop.
    private(set) var isDropping = false
    private var waiting: [@Sendable () -> Void] = []

    func beginDrop() { isDropping = true }

    func wait(_ body: @escaping @Sendable () -> Void) { waiting.append(body) }

    /// Ends the drop and returns the work that waited for it. The caller runs it without the lock.
    func endDrop() -> [@Sendable () -> Void] {
        defer { (isDropping, waiting) = (false, []) }
        return waiting
    }
}
