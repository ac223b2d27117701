import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Taking incomplete files into use, and letting go of them.
extension EventHandler {
    /// See ``Node/State/isReadByRanges``.
    private static let mostIdleSweeps = 10

    /// Under the transition lock: the incomplete file, taken into use; nil when it is complete.
    func useLocked(_ node: Node) throws(Errno) -> IncompleteFile? {
        if let file = node.state.withLock(\.file) { return file }
        let lower = try store.tree.open(node.handle, O_RDWR)
        let file: IncompleteFile?
        do throws(FillError) { file = try store.use(lower, engine: engine, isStrict: options.isStrict) } catch {
            throw Errno(error)
        }
        if file != nil {
            // Of a file that was complete in the kernel's eyes something may be ignored.
            try group.unignore(lower)
            node.state.withLock { $0.file = file }
        }
        return file
    }

    /// Ends what ``NodeTable/use(_:)`` began.
    func endUse(_ node: Node) {
        nodes.release(node)
        letGo(node)
    }

    /// Called whenever a user is gone, and after commits: a file that nobody uses is put down.
    func letGo(_ node: Node) {
        let (file, isReadByRanges) = node.state.withLock { ($0.users == 0 ? $0.file : nil, $0.isReadByRanges) }
        guard let file, file.fill.isIdle, !isReadByRanges || file.fill.isComplete else { return }
        // The engine knows that everything is there a moment before it says so.
        if file.fill.isComplete { file.stored.contentComplete() }
        // Its commit comes back here.
        if file.stored.hasPending { return file.stored.scheduleCommit() }
        node.transition.withLock { settleLocked(node, file) }
        nodes.forget(node)
    }

    /// Under the transition lock: lets go of `file` when nothing needs it any more; a finished one does not need its users.
    func settleLocked(_ node: Node, _ file: IncompleteFile) {
        if file.fill.isComplete { file.stored.contentComplete() }
        // Whoever uses it from now on keeps it, also when it is done before the last look.
        let uses = node.state.withLock(\.uses)
        // In this order: the record of a finished file is its last.
        let isFinished = file.stored.isFinished
        guard isFinished || (!file.stored.hasPending && file.fill.isIdle) else { return }
        node.state.withLock { state in
            guard state.file === file, isFinished || (state.users == 0 && state.uses == uses) else { return }
            state.file = nil
        }
        // From here on reads are the kernel's own: `file` is open for writing, so that it was not released since. A dirty
        // file is never clean again without a mark.
        guard isFinished else { return }
        ignore(file.stored.record.flags.contains(.dirty) ? .all : .access, of: file.stored.lower)
    }

    /// Once a second: puts down files that nobody uses, and looks again after those that were opened for writing.
    func sweep() {
        for node in nodes.all(where: { $0.state.withLock { $0.file != nil && $0.users == 0 } }) {
            node.state.withLock { state in
                state.idleSweeps = state.uses == state.usesSwept ? state.idleSweeps + 1 : 0
                state.usesSwept = state.uses
                if state.idleSweeps == Self.mostIdleSweeps { state.isReadByRanges = false }
            }
            letGo(node)
        }
        for node in nodes.all(where: { $0.state.withLock { $0.dirtyMark != nil } }) {
            node.transition.withLock { unmarkLocked(node) }
            nodes.forget(node)
        }
    }

    /// Takes back the dirty flag of a file that was opened for writing, and is closed, and was not written.
    private func unmarkLocked(_ node: Node) {
        guard let mark = node.state.withLock(\.dirtyMark) else { return }
        let lower = try? store.tree.open(node.handle, O_RDONLY)
        // A mapping outlives its descriptor. Whoever opens it from here on raises an event, which waits for this lock.
        if let lower, store.isOpenForWriting(lower) { return }
        node.state.withLock { $0.dirtyMark = nil }
        guard let lower else { return }
        if (try? store.unmarkDirty(lower, mark)) != true { ignore(.all, of: lower) }
    }
}
