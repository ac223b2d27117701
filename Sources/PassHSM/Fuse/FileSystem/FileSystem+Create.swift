import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem

/// CREATE and TMPFILE: new files that are open at once.
extension FileSystem {
    func create(_ reply: consuming Reply, _ parent: UInt64, _ name: Name, _ new: NewFile) {
        let flags = new.flags
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            if isHidden(name, in: parent) { throw Errno(rawValue: EPERM) }
            let directory = try directory(parent)
            var opening: Opening
            do throws(Errno) {
                let wanted = O_CREAT | O_EXCL | O_NOFOLLOW | (flags & (O_SYNC | O_DSYNC)) | O_RDWR
                let (file, share) = try made(by: user) { () throws(Errno) in
                    try CallerIdentity.with(reply.caller, umask: new.umask) { () throws(Errno) in
                        try Descriptor.open(at: directory.raw, name, wanted, mode: new.mode)
                    }
                }
                // Where the daemon holds inodes by descriptors, it holds this one by a descriptor that cannot write.
                let known =
                    try tree.opensHandles
                    ? file : Descriptor.open(at: directory.raw, name, PASSHSM_O_PATH | O_NOFOLLOW)
                let reference = try reference(known)
                opening = Opening(
                    inode: reference.inode, flags: flags & ~O_TRUNC, caller: user, entry: reference.entry,
                    created: file,
                    share: share)
            } catch {
                guard error.rawValue == EEXIST, flags & O_EXCL == 0 else { throw error }
                let reference = try lookup(name, in: directory)
                let caller = new.dropsSetIDs ? reply.caller.thread : nil
                opening = Opening(
                    inode: reference.inode, flags: flags, caller: user, entry: reference.entry, unprivileged: caller)
                guard opening.inode.isRegular else {
                    forget(reference.inode, 1)
                    throw Errno(rawValue: ESTALE)
                }
            }
            proceed(reply, opening)
        } catch { reply.error(error) }
    }

    /// TMPFILE: a file without a name that is open at once.
    func createUnnamed(_ reply: consuming Reply, _ parent: UInt64, _ new: NewFile) {
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            let directory = try directory(parent)
            // O_EXCL forbids naming the file later. The kernel enforces that.
            let wanted = PASSHSM_O_TMPFILE | O_RDWR | (new.flags & (O_SYNC | O_DSYNC))
            let (file, share) = try made(by: user) { () throws(Errno) in
                try CallerIdentity.with(reply.caller, umask: new.umask) { () throws(Errno) in
                    try Descriptor.open(at: directory.raw, ".", wanted, mode: new.mode)
                }
            }
            let known = try tree.opensHandles ? file : file.reopen(PASSHSM_O_PATH)
            let reference = try reference(known)
            let flags = new.flags & ~(PASSHSM_O_TMPFILE | O_TRUNC)
            let opening = Opening(
                inode: reference.inode, flags: flags, caller: user, entry: reference.entry, created: file, share: share)
            proceed(reply, opening)
        } catch { reply.error(error) }
    }

    /// Makes a new file with `make`, unless the daemon could not keep it open: without passthrough the file takes one
    /// of the descriptors that handles may use.
    private func made(
        by user: CallerUser, _ make: () throws(Errno) -> Descriptor
    ) throws(Errno) -> (Descriptor, DescriptorShares.Share?) {
        guard known.backing.withLock({ $0 == nil }) else { return (try make(), nil) }
        let place = try tree.root.duplicate()
        let share = try shares.take(place, for: user.user)
        try place.become(make())
        return (place, share)
    }
}
