import CFuse
import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem

/// GETATTR, SETATTR, STATFS and the extended attributes.
extension FileSystem {
    func getattr(_ reply: consuming Reply, _ node: fuse_ino_t) {
        do throws(Errno) {
            let inode = try inode(node)
            reply.attributes(try attributes(inode), timeout: attributeTimeout(inode))
        } catch { reply.error(error) }
    }

    /// GETATTR with the time of birth.
    func statx(_ reply: consuming Reply, _ node: fuse_ino_t) {
        do throws(Errno) {
            let inode = try inode(node)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            var entry = fuse_entry_param()
            entry.attr = try attributes(inode)
            entry.attr_timeout = attributeTimeout(inode)
            var out = passhsm_statx_out()
            passhsm_fill_statx(&out, entry)
            if let birth = lower.birthTime() {
                out.mask |= PASSHSM_STATX_BTIME
                out.btime = passhsm_sx_time(
                    seconds: Int64(birth.tv_sec), nanoseconds: UInt32(birth.tv_nsec), reserved: 0)
            }
            var slot = ReplySlot(reply)
            withUnsafeBytes(of: out) { slot.take().bytes($0) }
        } catch { reply.error(error) }
    }

    func setattr(_ reply: consuming Reply, _ node: fuse_ino_t, _ new: stat, _ requested: Int32) {
        let inode: Inode
        do throws(Errno) { inode = try self.inode(node) } catch { return reply.error(error) }
        let valid = UInt32(bitPattern: requested)
        noteChange(inode)
        guard valid & UInt32(FUSE_SET_ATTR_SIZE) != 0 else { return finishSetattr(reply, inode, new, valid) }
        do throws(Errno) {
            guard let lease = try files.lease(inode) else {
                guard try truncateComplete(inode, to: new.st_size) else { return setattr(reply, node, new, requested) }
                return finishSetattr(reply, inode, new, valid)
            }
            let file = lease.content
            let held = HeldLease(lease)
            truncate(inode, file, to: new.st_size, PendingReply(reply)) { [self] reply, error in
                if let error {
                    reply.error(error)
                } else {
                    finishSetattr(reply, inode, new, valid)
                }
                held.end()
            }
        } catch { reply.error(error) }
    }

    /// Returns false when the file was released meanwhile.
    private func truncateComplete(_ inode: Inode, to size: Int) throws(Errno) -> Bool {
        try files.transition(inode) { () throws(Errno) in
            if inode.state.withLock(\.lifecycle.isIncomplete) { return false }
            let lower = try open(inode, O_WRONLY)
            if inode.state.withLock(\.lifecycle.isClean) { _ = try files.markDirtyLocked(inode, lower) }
            inode.state.withLock { $0.lifecycle.stayDirty() }
            try changing(inode, lower) { () throws(Errno) in try lower.truncate(to: size) }
            return true
        }
    }

    private static let settable = UInt32(
        FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME
            | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME)

    /// Sets every attribute but the size, and answers.
    private func finishSetattr(_ reply: consuming Reply, _ inode: Inode, _ new: stat, _ valid: UInt32) {
        do throws(Errno) {
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            func has(_ bit: Int32) -> Bool { valid & UInt32(bit) != 0 }
            // A request that sets nothing comes from chown(2) with -1 twice, or from a change of content that takes
            // setuid and setgid away. The lower file system does what belongs to either.
            let isOwnerSet = has(FUSE_SET_ATTR_UID) || has(FUSE_SET_ATTR_GID) || valid & Self.settable == 0
            // At chown(2) the group that the file had before it counts.
            let isKilling = isOwnerSet || valid & PASSHSM_FATTR_KILL_SUIDGID != 0
            if isKilling && inode.type != S_IFDIR && !has(FUSE_SET_ATTR_MODE) {
                try clearSetIDs(lower, reply.caller.pid)
            }
            if isOwnerSet {
                let owner = has(FUSE_SET_ATTR_UID) ? new.st_uid : uid_t.max
                let group = has(FUSE_SET_ATTR_GID) ? new.st_gid : gid_t.max
                _ = try check { fchownat(lower.raw, "", owner, group, PASSHSM_AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) }
            }
            if has(FUSE_SET_ATTR_MODE) {
                try lower.withProcPath { path throws(Errno) in _ = try check { chmod(path, new.st_mode & 0o7777) } }
            }
            if has(FUSE_SET_ATTR_ATIME) || has(FUSE_SET_ATTR_MTIME) {
                let access =
                    has(FUSE_SET_ATTR_ATIME_NOW) ? FileTime.now : has(FUSE_SET_ATTR_ATIME) ? new.st_atim : FileTime.omit
                let modified =
                    has(FUSE_SET_ATTR_MTIME_NOW) ? FileTime.now : has(FUSE_SET_ATTR_MTIME) ? new.st_mtim : FileTime.omit
                try changing(inode, lower) { () throws(Errno) in try setTimes(lower, access, modified) }
                if has(FUSE_SET_ATTR_MTIME) { try noteModified(inode, lower) }
            }
            reply.attributes(try attributes(inode), timeout: attributeTimeout(inode))
        } catch { reply.error(error) }
    }

    private func setTimes(_ lower: Descriptor, _ access: timespec, _ modified: timespec) throws(Errno) {
        try lower.withProcPath { path throws(Errno) in
            let times = [access, modified]
            _ = try check { utimensat(AT_FDCWD, path, times, 0) }
        }
    }

    /// A fill restores the recorded modification time, so this records the time that was just set.
    private func noteModified(_ inode: Inode, _ lower: Descriptor) throws(Errno) {
        // The time is read before a release that is under way can restore the recorded one.
        let time = try lower.stat().st_mtim
        guard let lease = try files.lease(inode) else { return }
        if lease.content.isReadOnly { return }
        try lease.content.stored.touch(RemoteEntry.Time(seconds: time.tv_sec, nanoseconds: time.tv_nsec))
    }

    func statfs(_ reply: consuming Reply) {
        do throws(Errno) {
            var statistics = statvfs()
            _ = try check { fstatvfs(tree.directory.original.raw, &statistics) }
            reply.fileSystem(statistics)
        } catch { reply.error(error) }
    }

    // MARK: Extended attributes

    /// The attribute that answers `passhsm state`. It is not listed and cannot be changed.
    static let stateAttribute = "passhsm.state"

    private func isRecord(_ name: UnsafePointer<CChar>) -> Bool {
        Store.attributes.contains { strcmp(name, $0) == 0 }
    }

    func getxattr(_ reply: consuming Reply, _ node: fuse_ino_t, _ name: UnsafePointer<CChar>, size: Int) {
        do throws(Errno) {
            if isRecord(name) { throw Errno(rawValue: ENODATA) }
            let inode = try inode(node)
            if strcmp(name, Self.stateAttribute) == 0 {
                return answer(reply, try options.describe(describe(inode)), size)
            }
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            if size == 0 {
                return reply.attributeSize(
                    try lower.withProcPath { path throws(Errno) in
                        try ExtendedAttributes.get(name, of: path, .follow, into: .init(start: nil, count: 0))
                    })
            }
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 1)
            defer { buffer.deallocate() }
            let count = try lower.withProcPath { path throws(Errno) in
                try ExtendedAttributes.get(name, of: path, .follow, into: buffer)
            }
            reply.bytes(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        } catch { reply.error(error) }
    }

    func listxattr(_ reply: consuming Reply, _ node: fuse_ino_t, size: Int) {
        do throws(Errno) {
            let inode = try inode(node)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            let all = try lower.withProcPath { path throws(Errno) in try ExtendedAttributes.list(of: path, .follow) }
            var shown = ExtendedAttributes.names(in: all).filter { name in
                !Store.attributes.contains { name.dropLast().elementsEqual($0.utf8) }
            }
            // Callers that may not read these attributes do not see them (xattr(7)).
            func isTrusted(_ name: [UInt8]) -> Bool { name.starts(with: "trusted.".utf8) }
            if shown.contains(where: isTrusted), !reply.credentials.has(ThreadCredentials.administrates) {
                shown.removeAll(where: isTrusted)
            }
            answer(reply, Array(shown.joined()), size)
        } catch { reply.error(error) }
    }

    /// Answers with `value`, or with its size when `size` is 0. `size` is the room that the request has, in bytes.
    private func answer(_ reply: consuming Reply, _ value: [UInt8], _ size: Int) {
        if size == 0 { return reply.attributeSize(value.count) }
        if value.count > size { return reply.error(ERANGE) }
        var slot = ReplySlot(reply)
        value.withUnsafeBytes { slot.take().bytes($0) }
    }

    func setxattr(
        _ reply: consuming Reply, _ node: fuse_ino_t, _ name: UnsafePointer<CChar>, _ value: UnsafeRawBufferPointer,
        flags: Int32, _ requestFlags: UInt32
    ) {
        reply.result { () throws(Errno) in
            if isRecord(name) || strcmp(name, Self.stateAttribute) == 0 { throw Errno(rawValue: EPERM) }
            let inode = try inode(node)
            noteChange(inode)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            try lower.withProcPath { path throws(Errno) in
                try OrdinaryUser.write { () throws(Errno) in
                    try ExtendedAttributes.set(name, of: path, .follow, to: value, flags: flags)
                }
                // The flag means that an owner outside the file's group set an ACL.
                guard requestFlags & UInt32(FUSE_SETXATTR_ACL_KILL_SGID) != 0 else { return }
                let mode = try lower.stat().st_mode
                if mode & S_ISGID != 0 { _ = try check { chmod(path, mode & 0o7777 & ~S_ISGID) } }
            }
        }
    }

    func removexattr(_ reply: consuming Reply, _ node: fuse_ino_t, _ name: UnsafePointer<CChar>) {
        reply.result { () throws(Errno) in
            if isRecord(name) { throw Errno(rawValue: ENODATA) }
            let inode = try inode(node)
            noteChange(inode)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            try lower.withProcPath { path throws(Errno) in try ExtendedAttributes.remove(name, of: path, .follow) }
        }
    }

    private func describe(_ inode: Inode) throws(Errno) -> StoredState {
        if let file = inode.content {
            return StoredState(
                record: file.stored.record, present: file.fill.present, layout: file.fill.layout,
                size: try file.stored.lower.stat().st_size, isComplete: file.fill.isComplete)
        }
        return try store.describe(inode === root ? tree.root : open(inode, PASSHSM_O_PATH))
    }
}
