import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem

/// FLUSH and RELEASE, and the work after the last handle of a file.
extension FileSystem {
    /// FLUSH: a descriptor of the handle was closed. A read that was sent ahead of its reader cannot be interrupted,
    /// but FLUSH comes when the reader dies. It cancels the handle's waiting reads. Other readers that wait for the
    /// same pages ask again.
    func flush(_ reply: consuming Reply, _ number: UInt64) {
        reply.result { () throws(Errno) in
            for waiter in try openFiles.find(number).waiters { cancelLater(waiter) }
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

    /// Ends a handle that its inode counts.
    func ended(_ handle: OpenFile) {
        let inode = handle.inode
        if handle.usesLocks.load(ordering: .relaxed) {
            locks.release(ObjectIdentifier(inode), by: ObjectIdentifier(handle))
        }
        var ended: [DescriptorShares.Share] = []
        let (isUnwritten, isActive) = inode.state.withLock { state -> (Bool, Bool) in
            if handle.canBeMapped { state.mapping.handles -= 1 }
            state.lifecycle.closeHandle(isServed: handle.mode == .cached, isWritable: handle.isWritable)
            if handle.mode == .cached && state.lifecycle.handles.served == 0 {
                state.descriptors.shared = [:]
                ended = state.takeUnusedShares()
            }
            return (handle.isWritable && state.lifecycle.returnableMark != nil, state.lifecycle.content != nil)
        }
        // Their descriptors may be the last.
        _ = consume ended
        if isUnwritten { files.unmark(inode) }
        if isActive { files.deactivate(inode) }
        if handle.canBeMapped { lookForMapping(inode) }
    }

    /// Called once a second, for the watched inodes. Deactivates every file without users; such a file's last
    /// read-ahead ended after its last handle. Looks again at files that were still mapped when their last handle for
    /// writing was closed. Checks whether others changed the files of which the kernel has pages.
    func sweep() {
        for inode in inodes.takeWatched() {
            let (looks, lower) = inode.state.withLock { state in
                (state.mapping.mayBeLeft, state.lifecycle.isComplete ? state.descriptors.any : nil)
            }
            files.sweep(inode)
            if looks { lookForMapping(inode) }
            if let lower { lookAtPages(inode, lower) }
            if inode.state.withLock(\.isWatched) { inodes.watch(inode) }
        }
    }
}
