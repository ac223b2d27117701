import CFuse
import Glibc
import HSMStore
import HSMSystem

/// FLUSH and RELEASE: what the last handle of a file leaves behind.
extension FileSystem {
    /// FLUSH: a descriptor of the handle was closed. A read that was sent ahead of its reader cannot be interrupted, but
    /// when its reader dies, this comes; whoever else waits for the same pages asks again.
    func flush(_ reply: consuming Reply, _ number: UInt64) {
        reply.result { () throws(Errno) in
            for ticket in try openFiles.find(number).waitingTickets { cancelLater(ticket) }
        }
    }

    func release(_ reply: consuming Reply, _ number: UInt64) {
        close(number)
        reply.done()
    }

    func close(_ number: UInt64) {
        guard let handle = openFiles.remove(number) else { return }
        openHandles.add(-1)
        ended(handle)
    }

    /// A handle that is counted by its inode is no more.
    func ended(_ handle: OpenFile) {
        let inode = handle.inode
        if handle.usesLocks.load(ordering: .relaxed) {
            locks.release(ObjectIdentifier(inode), by: ObjectIdentifier(handle))
        }
        var ended: [DescriptorShares.Share] = []
        let (isUnwritten, isSettling) = inode.state.withLock { state -> (Bool, Bool) in
            if handle.canBeMapped { state.mappers -= 1 }
            switch handle.mode {
            case .cached:
                state.cachedOpens -= 1
                if state.cachedOpens == 0 { state.shared = [:] }
                if state.cachedOpens == 0 && state.file == nil { swap(&ended, &state.shares) }
            case .passthrough: state.passthroughOpens -= 1
            }
            if handle.isWritable { state.writers -= 1 }
            return (handle.isWritable && state.writers == 0 && state.dirtyMark != nil, state.file != nil)
        }
        if isUnwritten { unmark(inode) }
        if isSettling { letGo(inode) }
        if handle.canBeMapped { lookForMapping(inode) }
    }

    /// Takes back the dirty flag of a file that was opened for writing and not written.
    func unmark(_ inode: Inode) {
        transition(inode) { unmarkLocked(inode) }
        forget(inode, 0)
    }

    private func unmarkLocked(_ inode: Inode) {
        let mark = inode.state.withLock { $0.writers == 0 ? $0.dirtyMark : nil }
        guard let mark else { return }
        let lower = try? open(inode, O_RDONLY)
        // A mapping outlives its handle, for with passthrough it is one of the lower file. Asked again by `sweep`.
        if let lower, store.isOpenForWriting(lower) { return }
        inode.state.withLock { $0.dirtyMark = nil }
        guard let lower, let before = try? lower.stat().st_ctim, (try? store.unmarkDirty(lower, mark)) == true,
            let after = try? lower.stat().st_ctim
        else { return }
        inode.state.withLock { state in
            state.beginOwnChange(at: before)
            state.endOwnChange(at: after)
            if case .dual(let flags) = state.residence { state.residence = .dual(flags.subtracting(.dirty)) }
        }
    }
}
