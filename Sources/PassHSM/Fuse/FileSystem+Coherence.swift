import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Keeping the kernel's pages those of the lower file, see ``CachedPages``. Of complete files only: of an incomplete one there
/// is no telling a fill from a change by somebody else.
extension FileSystem {
    /// Others may change the lower directory.
    private var isWatching: Bool { options.cache != .exclusive }

    /// A handle that reads and writes through the kernel's pages is about to be opened, under the transition lock. Without
    /// another such handle nobody reads the pages, so that dropping them waits for no request.
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

    /// Drops the pages when somebody may have changed the file since the last look. While it is open for writing here nobody
    /// looks, and so they are dropped after that, too: who changed it is not to be told.
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

    /// Performs `body`, by which this mount changes the size or times of `inode`, perhaps without a handle.
    func changing(_ inode: Inode, _ lower: Descriptor, _ body: () throws(Errno) -> Void) throws(Errno) {
        lookAtPages(inode, lower)
        try body()
        guard inode.state.withLock({ $0.pages?.known != nil }), let status = try? lower.stat() else { return }
        inode.state.withLock { state in
            if state.lifecycle.handles.writers == 0 { state.pages?.known = .init(status) }
        }
    }

    /// A handle reads `range` of a file that fills: drops the pages that it has left behind, see ``PagesBehind``.
    ///
    /// Only what is there: a page that is being read is waited for, and so would be a fill, by a thread that fills need, and
    /// by whoever opens the file meanwhile.
    func dropPages(behind range: Range<Int>, of file: IncompleteFile, _ handle: OpenFile) {
        guard let behind = handle.behind.withLock({ $0.noteRead(range) }) else { return }
        // One read of the kernel may hold pages on both sides of an end.
        let before = max(0, behind.lowerBound - ReadBuffers.size)
        let touched = Range(at: before, count: behind.upperBound - before + ReadBuffers.size)
        guard file.fill.isPresent(touched), dropPagesLater(handle.inode, behind) else { return }
        handle.behind.withLock { $0.noteDropped(behind) }
    }

    /// Drops the pages of `range`, or all of them, while handles are open: it waits for reads, which a thread that answers
    /// requests must not. False, and nothing is done, while somebody may write, or while pages are being dropped already.
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

    /// Calls `body` at once, or when the pages that are being dropped are gone: no handle may write before.
    func whenPagesAreDropped(_ inode: Inode, _ body: @escaping @Sendable () -> Void) {
        let waits = inode.state.withLock { state in
            guard let pages = state.pages, pages.isDropping else { return false }
            pages.wait(body)
            return true
        }
        if !waits { body() }
    }
}
