import Glibc
import HSMFuseDoor
import HSMSystem

/// FLOCK: locks of the lower file, so that they also hold against programs that use the lower directory itself.
///
/// The daemon does not serve GETLK and SETLK. The kernel therefore keeps POSIX and OFD locks by itself, among the users
/// of this mount.
extension FileSystem {
    func flock(_ reply: consuming Reply, _ number: UInt64, _ operation: Int32) {
        let handle: OpenFile
        do throws(Errno) { handle = try openFiles.find(number) } catch { return reply.error(error) }
        let (key, owner) = (ObjectIdentifier(handle.inode), ObjectIdentifier(handle))
        let mode: LockTable.Locks.Mode
        switch operation & ~LOCK_NB {
        case LOCK_UN:
            locks.release(key, by: owner)
            return reply.done()
        case LOCK_SH: mode = .shared
        case LOCK_EX: mode = .exclusive
        default: return reply.error(EINVAL)
        }
        handle.usesLocks.store(true, ordering: .relaxed)
        let caller = CallerUser(reply.caller)
        let open: LockTable.Opening = { [self] () throws(Errno) in try openForLocks(handle, caller) }
        do throws(Errno) {
            if try locks.acquire(mode, key, by: owner, open: open) { return reply.done() }
            if operation & LOCK_NB != 0 { return reply.error(EWOULDBLOCK) }
        } catch { return reply.error(error) }
        wait(PendingReply(reply), mode, handle, open)
    }

    /// Waits for the lock without a thread. INTERRUPT ends the wait.
    private func wait(
        _ reply: PendingReply, _ mode: LockTable.Locks.Mode, _ handle: OpenFile, _ open: LockTable.Opening
    ) {
        let number = locks.beginWaiting { reply.take()?.error($0) }
        reply.onInterrupt { [locks] in locks.interrupt(number) }
        locks.acquire(
            mode, ObjectIdentifier(handle.inode), by: ObjectIdentifier(handle), number: number, open: open)
    }

    /// Opens the lower file for the locks of all its handles. Opens it for reading where that is possible: a look for
    /// files that are open for writing (``Store/isOpenForWriting(_:)``) must not find this descriptor.
    private func openForLocks(
        _ handle: OpenFile, _ caller: CallerUser
    ) throws(Errno) -> (Descriptor, DescriptorShares.Share?) {
        let lower: Descriptor
        do throws(Errno) { lower = try open(handle.inode, O_RDONLY | O_NONBLOCK) } catch {
            guard error.rawValue == EACCES else { throw error }
            lower = try open(handle.inode, handle.flags)
        }
        return (lower, try shares.take(lower, for: caller.user))
    }
}
