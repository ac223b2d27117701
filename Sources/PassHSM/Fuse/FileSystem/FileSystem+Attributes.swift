import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMFuseDoor
import HSMStore
import HSMSystem

/// GETATTR, SETATTR, STATFS and the extended attributes.
extension FileSystem {
    func getattr(_ reply: consuming Reply, _ node: UInt64) {
        do throws(Errno) {
            let inode = try inode(node)
            reply.attributes(try attributes(inode), timeout: attributeTimeout(inode))
        } catch { reply.error(error) }
    }

    /// GETATTR with the time of birth.
    func statx(_ reply: consuming Reply, _ node: UInt64) {
        do throws(Errno) {
            let inode = try inode(node)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            let attributes = try attributes(inode)
            reply.attributes(attributes, birth: lower.birthTime(), timeout: attributeTimeout(inode))
        } catch { reply.error(error) }
    }

    func setattr(_ reply: consuming Reply, _ node: UInt64, _ new: AttributeChange) {
        let inode: Inode
        do throws(Errno) { inode = try self.inode(node) } catch { return reply.error(error) }
        noteChange(inode)
        guard let size = new.size else { return finishSetattr(reply, inode, new) }
        do throws(Errno) {
            guard let lease = try files.lease(inode) else {
                guard try truncateComplete(inode, to: size) else { return setattr(reply, node, new) }
                return finishSetattr(reply, inode, new)
            }
            let file = lease.content
            let held = HeldLease(lease)
            truncate(inode, file, to: size, PendingReply(reply)) { [self] reply, error in
                if let error {
                    reply.error(error)
                } else {
                    finishSetattr(reply, inode, new)
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

    /// Sets every attribute but the size, and answers.
    private func finishSetattr(_ reply: consuming Reply, _ inode: Inode, _ new: AttributeChange) {
        do throws(Errno) {
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            // A request that sets nothing comes from chown(2) with -1 twice, or from a change of content that takes
            // setuid and setgid away. The lower file system does what belongs to either.
            let isOwnerSet = new.owner != nil || new.group != nil || new.setsNothing
            // At chown(2) the group that the file had before it counts.
            let isKilling = isOwnerSet || new.dropsSetIDs
            if isKilling && inode.type != S_IFDIR && new.mode == nil {
                try clearSetIDs(lower, reply.caller.thread)
            }
            if isOwnerSet {
                let (owner, group) = (new.owner ?? uid_t.max, new.group ?? gid_t.max)
                _ = try check { fchownat(lower.raw, "", owner, group, PASSHSM_AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) }
            }
            if let mode = new.mode {
                try lower.withProcPath { path throws(Errno) in _ = try check { chmod(path, mode & 0o7777) } }
            }
            if new.accessTime != nil || new.modificationTime != nil {
                let (access, modified) = (new.accessTime ?? FileTime.omit, new.modificationTime ?? FileTime.omit)
                try changing(inode, lower) { () throws(Errno) in try setTimes(lower, access, modified) }
                if new.modificationTime != nil { try noteModified(inode, lower) }
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

    private func isRecord(_ name: Name) -> Bool {
        Store.attributes.contains { strcmp(name, $0) == 0 }
    }

    func getxattr(_ reply: consuming Reply, _ node: UInt64, _ name: Name, size: Int) {
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

    func listxattr(_ reply: consuming Reply, _ node: UInt64, size: Int) {
        do throws(Errno) {
            let inode = try inode(node)
            let lower = try inode === root ? tree.root : open(inode, PASSHSM_O_PATH)
            let all = try lower.withProcPath { path throws(Errno) in try ExtendedAttributes.list(of: path, .follow) }
            var shown = ExtendedAttributes.names(in: all).filter { name in
                !Store.attributes.contains { name.dropLast().elementsEqual($0.utf8) }
            }
            // Callers that may not read these attributes do not see them (xattr(7)).
            func isTrusted(_ name: [UInt8]) -> Bool { name.starts(with: "trusted.".utf8) }
            if shown.contains(where: isTrusted), !reply.caller.credentials.has(ThreadCredentials.administrates) {
                shown.removeAll(where: isTrusted)
            }
            answer(reply, Array(shown.joined()), size)
        } catch { reply.error(error) }
    }

    /// Answers with `value`, or with its size when `size` is 0. `size` is the room that the request has, in bytes.
    private func answer(_ reply: consuming Reply, _ value: [UInt8], _ size: Int) {
        if size == 0 { return reply.attributeSize(value.count) }
        if value.count > size { return reply.error(ERANGE) }
        reply.bytes(value)
    }

    func setxattr(
        _ reply: consuming Reply, _ node: UInt64, _ name: Name, _ value: UnsafeRawBufferPointer,
        flags: Int32, dropsSetGID: Bool
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
                guard dropsSetGID else { return }
                let mode = try lower.stat().st_mode
                if mode & S_ISGID != 0 { _ = try check { chmod(path, mode & 0o7777 & ~S_ISGID) } }
            }
        }
    }

    func removexattr(_ reply: consuming Reply, _ node: UInt64, _ name: Name) {
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
