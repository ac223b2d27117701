import CFuse
import CLinux
import Glibc
import HSMSystem

/// CREATE and TMPFILE: new files that are open at once.
extension FileSystem {
    func create(
        _ reply: consuming Reply, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>, mode: mode_t, flags: Int32,
        _ requestFlags: UInt32
    ) {
        if requestFlags & RequestTranslation.isOther != 0 {
            return makeUnnamed(reply, parent, mode: mode, flags: flags)
        }
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            if isHidden(name, in: parent) { throw Errno(rawValue: EPERM) }
            let directory = try directory(parent)
            var opening: Opening
            do throws(Errno) {
                let wanted = O_CREAT | O_EXCL | O_NOFOLLOW | (flags & (O_SYNC | O_DSYNC)) | O_RDWR
                let (file, share) = try made(by: user) { () throws(Errno) in
                    try CallerIdentity.with(reply.caller) { () throws(Errno) in
                        try Descriptor.open(at: directory.raw, name, wanted, mode: mode)
                    }
                }
                // Where the daemon holds inodes by descriptors, it holds this one by a descriptor that cannot write.
                let known =
                    try tree.opensHandles
                    ? file : Descriptor.open(at: directory.raw, name, PASSHSM_O_PATH | O_NOFOLLOW)
                let entry = try reference(known)
                opening = Opening(
                    inode: entry.inode, flags: flags & ~O_TRUNC, caller: user, entry: entry, created: file,
                    share: share)
            } catch {
                guard error.rawValue == EEXIST, flags & O_EXCL == 0 else { throw error }
                let entry = try lookup(name, in: directory)
                let caller = requestFlags & PASSHSM_OPEN_KILL_SUIDGID != 0 ? reply.caller.pid : nil
                opening = Opening(
                    inode: entry.inode, flags: flags, caller: user, entry: entry, unprivileged: caller)
                guard opening.inode.isRegular else {
                    forget(entry.inode, 1)
                    throw Errno(rawValue: ESTALE)
                }
            }
            proceed(reply, opening)
        } catch { reply.error(error) }
    }

    /// TMPFILE: a file without a name that is open at once.
    private func makeUnnamed(_ reply: consuming Reply, _ parent: fuse_ino_t, mode: mode_t, flags: Int32) {
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            let directory = try directory(parent)
            // O_EXCL forbids naming the file later. The kernel enforces that.
            let wanted = PASSHSM_O_TMPFILE | O_RDWR | (flags & (O_SYNC | O_DSYNC))
            let (file, share) = try made(by: user) { () throws(Errno) in
                try CallerIdentity.with(reply.caller) { () throws(Errno) in
                    try Descriptor.open(at: directory.raw, ".", wanted, mode: mode)
                }
            }
            let known = try tree.opensHandles ? file : file.reopen(PASSHSM_O_PATH)
            let entry = try reference(known)
            let flags = flags & ~(PASSHSM_O_TMPFILE | O_TRUNC)
            let opening = Opening(
                inode: entry.inode, flags: flags, caller: user, entry: entry, created: file, share: share)
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
