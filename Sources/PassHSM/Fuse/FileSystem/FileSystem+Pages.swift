import Glibc
import HSMCore
import HSMStore

/// Reads of present pages that the kernel asks for together with absent ones.
///
/// The kernel reads ahead by READs of up to 256 pages, and a reader of one of the pages waits for the answer to all of
/// them. An error makes the kernel ask for the pages one by one as they are wanted, and no program sees that error.
/// Present pages are then answered at once, and each absent page waits by itself. A short answer would not do: the
/// kernel takes it for the end of the file, and shows zeros behind it.
extension FileSystem {
    /// How long such a READ waits while none of its content arrives.
    private static let idleTimeout = Duration.milliseconds(200)
    static let pageSize = 4096

    /// Keeps the READ of `waiter`, which waits for `range`, from delaying readers of the pages that are present.
    func askByPages(_ waiter: FillEngine.Waiter, _ range: Range<Int>, of file: IncompleteFile, _ inode: Inode) {
        guard range.count > Self.pageSize, file.fill.isPartlyPresent(range) else { return }
        // The kernel asks by pages already, and these are large pages: an error would reach the program.
        let page = range.lowerBound / Self.pageSize
        if inode.state.withLock({ $0.pages?.byPages.contains(page..<page + 1) ?? true }) { return }
        if engine.remoteHealth.outage != nil { return endRead(waiter, range, inode) }
        Task(executorPreference: pool) { [self] in
            repeat {
                try? await Task.sleep(for: Self.idleTimeout)
                guard engine.isWaiting(waiter) else { return }
            } while engine.remoteHealth.outage == nil && engine.isComing(range, of: file.fill, within: Self.idleTimeout)
            endRead(waiter, range, inode)
        }
    }

    private func endRead(_ waiter: FillEngine.Waiter, _ range: Range<Int>, _ inode: Inode) {
        let pages = range.lowerBound / Self.pageSize..<(range.upperBound + Self.pageSize - 1) / Self.pageSize
        inode.state.withLock { $0.pages?.byPages.insert(pages) }
        engine.withdraw(waiter)
    }

    /// Notes that the kernel asks for a single page: it keeps that page as one.
    func noteSinglePage(_ range: Range<Int>, _ inode: Inode) {
        let page = range.lowerBound / Self.pageSize
        inode.state.withLock { $0.pages?.byPages.remove(page..<page + 1) }
    }
}
