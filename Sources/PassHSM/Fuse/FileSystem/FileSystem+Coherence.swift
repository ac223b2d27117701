import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Keeps the kernel's pages equal to the lower file, see ``CachedPages``. The daemon looks for changes only in complete
/// files: in an incomplete one it cannot tell a fill from a change by others.
extension FileSystem {
    /// Whether others may change the lower directory.
    private var isWatching: Bool { options.cache != .exclusive }

    /// Prepares for a cached handle that is about to be opened, under the transition lock. Without another cached
    /// handle no request reads the pages, so dropping them does not wait.
    func openPagesLocked(_ inode: Inode, _ lower: Descriptor) throws(Errno) {
        let (isFirst, isComplete) = inode.state.withLock { ($0.lifecycle.handles.served == 0, $0.lifecycle.isComplete) }
        guard isFirst else { return lookAtPages(inode, lower) }
        let stamp = isComplete && isWatching ? CachedPages.Stamp(try lower.stat()) : nil
        let areStale = inode.state.withLock { state in
            let pages = state.pages ?? CachedPages()
            let isChanged = stamp != nil && pages.known != nil && pages.known != stamp
            defer { (state.pages, pages.areStale, pages.known) = (pages, false, stamp) }
            return state.pages != nil && (pages.areStale || isChanged)
        }
        if areStale { forget(pagesOf: inode) }
    }

    /// Drops the pages when the file may have changed since the last look. The daemon does not look while the file is
    /// open for writing here. It therefore drops the pages after such changes too, because it cannot tell by whom the
    /// file was changed.
    func lookAtPages(_ inode: Inode, _ lower: Descriptor) {
        guard isWatching, inode.state.withLock({ $0.pages != nil }), let status = try? lower.stat() else { return }
        let stamp = CachedPages.Stamp(status)
        let isChanged = inode.state.withLock { state in
            guard let pages = state.pages, state.lifecycle.isComplete, state.lifecycle.handles.writers == 0,
                !pages.isDropping
            else { return false }
            defer { pages.known = stamp }
            return pages.known.map { $0 != stamp } ?? false
        }
        if isChanged { dropPagesLater(inode) }
    }

    /// Performs `body`, which changes the size or times of `inode` for a user of this mount, perhaps without a handle.
    func changing(_ inode: Inode, _ lower: Descriptor, _ body: () throws(Errno) -> Void) throws(Errno) {
        lookAtPages(inode, lower)
        try body()
        guard inode.state.withLock({ $0.pages?.known != nil }), let status = try? lower.stat() else { return }
        inode.state.withLock { state in
            if state.lifecycle.handles.writers == 0 { state.pages?.known = .init(status) }
        }
    }

    /// Drops the pages that a handle has left behind by reading `range` of a file that fills, see ``PagesBehind``.
    ///
    /// Drops only pages whose bytes are present. Dropping a page waits for its read, and that read may wait for a fill.
    /// The wait would hold a thread that fills need, and would delay every open of the file meanwhile.
    func dropPages(behind range: Range<Int>, of file: IncompleteFile, _ handle: OpenFile) {
        guard let behind = handle.behind.withLock({ $0.noteRead(range) }) else { return }
        // One READ may hold pages on both sides of an end of the range.
        let before = max(0, behind.lowerBound - ReadBuffers.size)
        let touched = Range(at: before, count: behind.upperBound - before + ReadBuffers.size)
        guard file.fill.isPresent(touched), dropPagesLater(handle.inode, behind) else { return }
        handle.behind.withLock { $0.noteDropped(behind) }
    }

    /// Drops the pages of `range`, or all of them, while handles are open. Does so on the pool: a drop waits for reads,
    /// and a thread that answers requests must not wait for them. Returns false, and does nothing, while a handle can
    /// write or pages are being dropped already.
    @discardableResult
    private func dropPagesLater(_ inode: Inode, _ range: Range<Int>? = nil) -> Bool {
        let isNew = inode.state.withLock { state in
            guard let pages = state.pages, state.lifecycle.handles.writers == 0, !pages.isDropping else { return false }
            pages.beginDrop()
            return true
        }
        guard isNew else { return false }
        pool.run { [self] in
            forget(pagesOf: inode, range)
            for body in inode.state.withLock({ $0.pages?.endDrop() }) ?? [] { body() }
        }
        return true
    }

    private func forget(pagesOf inode: Inode, _ range: Range<Int>? = nil) {
        known.invalidate(inode, range.map { .range($0) } ?? .all)
    }

    /// Calls `body` at once, or after the drop of pages that is under way: no handle may write before its end.
    func whenPagesAreDropped(_ inode: Inode, _ body: @escaping @Sendable () -> Void) {
        let waits = inode.state.withLock { state in
            guard let pages = state.pages, pages.isDropping else { return false }
            pages.wait(body)
            return true
        }
        if !waits { body() }
    }
}
