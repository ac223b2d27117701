import CLinux
import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem

/// LOOKUP, READLINK, and the requests that change names: MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR and RENAME.
extension FileSystem {
    func lookup(_ reply: consuming Reply, _ parent: UInt64, _ name: Name) {
        do throws(Errno) {
            if isHidden(name, in: parent) { throw Errno(rawValue: ENOENT) }
            if strcmp(name, ".") == 0 { return answer(reply, try lookupSelf(parent)) }
            if strcmp(name, "..") == 0 { return answer(reply, try lookupParent(of: parent)) }
            answer(reply, try lookup(name, in: directory(parent)))
        } catch {
            // An entry without an inode tells the kernel that it may remember the name as missing.
            if error.rawValue == ENOENT && options.cache == .exclusive {
                var none = Entry()
                none.entryTimeout = timeout
                _ = reply.entry(none)
            } else {
                reply.error(error)
            }
        }
    }

    private func answer(_ reply: consuming Reply, _ reference: Reference) {
        if !reply.entry(reference.entry) { forget(reference.inode, 1) }
    }

    /// LOOKUP of "." comes for the id in a file handle whose inode the kernel does not know. The id may be any number.
    private func lookupSelf(_ node: UInt64) throws(Errno) -> Reference {
        if node == NodeID.root.number { return try reference(tree.root) }
        guard let known = inodes.find(node) else { return try reference(findUnknown(node)) }
        return try reference(open(known, PASSHSM_O_PATH))
    }

    /// LOOKUP of ".." comes for a directory that was found by its file handle.
    private func lookupParent(of node: UInt64) throws(Errno) -> Reference {
        if node == NodeID.root.number { return try reference(tree.root) }
        let directory = try directory(node)
        let parent = try Descriptor.open(at: directory.raw, "..", PASSHSM_O_PATH | O_DIRECTORY)
        guard try isInTree(parent) else { throw Errno(rawValue: ESTALE) }
        return try reference(parent)
    }

    /// Makes a name by calling `body` as the caller, and answers with the name's entry.
    private func make(
        _ reply: consuming Reply, _ parent: UInt64, _ name: Name, umask: mode_t,
        _ body: (Descriptor) -> Int32
    ) {
        do throws(Errno) {
            if isHidden(name, in: parent) { throw Errno(rawValue: EPERM) }
            let directory = try directory(parent)
            try CallerIdentity.with(reply.caller, umask: umask) { () throws(Errno) in _ = try check { body(directory) }
            }
            answer(reply, try lookup(name, in: directory))
        } catch { reply.error(error) }
    }

    func mknod(
        _ reply: consuming Reply, _ parent: UInt64, _ name: Name, mode: mode_t, device: dev_t, umask: mode_t
    ) {
        make(reply, parent, name, umask: umask) { mknodat($0.raw, name, mode, device) }
    }

    func mkdir(_ reply: consuming Reply, _ parent: UInt64, _ name: Name, mode: mode_t, umask: mode_t) {
        make(reply, parent, name, umask: umask) { mkdirat($0.raw, name, mode) }
    }

    func symlink(
        _ reply: consuming Reply, _ target: Name, _ parent: UInt64, _ name: Name
    ) {
        make(reply, parent, name, umask: 0) { symlinkat(target, $0.raw, name) }
    }

    func link(_ reply: consuming Reply, _ node: UInt64, _ parent: UInt64, _ name: Name) {
        do throws(Errno) {
            if isHidden(name, in: parent) { throw Errno(rawValue: EPERM) }
            let inode = try inode(node)
            noteChange(inode)
            let file = try open(inode, PASSHSM_O_PATH)
            let directory = try directory(parent)
            do throws(Errno) {
                _ = try check { linkat(file.raw, "", directory.raw, name, PASSHSM_AT_EMPTY_PATH) }
            } catch {
                // Without CAP_DAC_READ_SEARCH linkat(2) takes a path to the descriptor, but not the descriptor itself.
                if error.rawValue != ENOENT { throw error }
                try file.withProcPath { path throws(Errno) in
                    _ = try check { linkat(AT_FDCWD, path, directory.raw, name, AT_SYMLINK_FOLLOW) }
                }
            }
            answer(reply, try lookup(name, in: directory))
        } catch { reply.error(error) }
    }

    func unlink(_ reply: consuming Reply, _ parent: UInt64, _ name: Name) {
        let caller = CallerUser(reply.caller)
        reply.result { () throws(Errno) in
            try remove(name, in: directory(parent), flags: 0, caller)
        }
    }

    func rmdir(_ reply: consuming Reply, _ parent: UInt64, _ name: Name) {
        let caller = CallerUser(reply.caller)
        reply.result { () throws(Errno) in
            try remove(name, in: directory(parent), flags: Int32(AT_REMOVEDIR), caller)
        }
    }

    func rename(
        _ reply: consuming Reply, _ parent: UInt64, _ name: Name, _ newParent: UInt64,
        _ newName: Name, flags: UInt32
    ) {
        let caller = reply.caller
        reply.result { () throws(Errno) in
            if isHidden(newName, in: newParent) || isHidden(name, in: parent) { throw Errno(rawValue: EPERM) }
            let from = try directory(parent)
            let to = try directory(newParent)
            let replaced = noteRemoval(of: newName, in: to)
            if let handle = try? FileHandle(of: name, at: from.raw), let moved = inodes.find(handle) {
                noteChange(moved)
            }
            if flags & PASSHSM_RENAME_WHITEOUT == 0 {
                _ = try check { passhsm_renameat2(from.raw, name, to.raw, newName, flags) }
            } else {
                // The whiteout belongs to the caller.
                try CallerIdentity.with(caller, umask: 0) { () throws(Errno) in
                    _ = try check { passhsm_renameat2(from.raw, name, to.raw, newName, flags) }
                }
            }
            replaced?.keepIfNameless(shares, CallerUser(caller))
        }
    }

    private func remove(
        _ name: Name, in directory: Descriptor, flags: Int32, _ caller: CallerUser
    ) throws(Errno) {
        let removed = noteRemoval(of: name, in: directory)
        _ = try check { unlinkat(directory.raw, name, flags) }
        removed?.keepIfNameless(shares, caller)
    }

    /// A known inode that is about to lose a name.
    private struct Removal {
        let inode: Inode
        /// The lower file, opened with O_PATH.
        let lower: Descriptor

        /// Keeps a lower file without a name open, because it would be gone otherwise, while users have it as their
        /// directory or open with O_PATH. Does nothing when there are too few descriptors.
        func keepIfNameless(_ shares: DescriptorShares, _ caller: CallerUser) {
            guard inode.path == nil, let status = try? lower.stat(), status.st_nlink == 0 else { return }
            do throws(Errno) {
                let share = try shares.take(lower, for: caller.user)
                inode.state.withLock { $0.nameless = .init(lower, share) }
            } catch {}
        }
    }

    /// Notes that the file may lose its last name: the store's data about it is removed when the kernel forgets it.
    private func noteRemoval(of name: Name, in directory: Descriptor) -> Removal? {
        guard let handle = try? FileHandle(of: name, at: directory.raw), let inode = inodes.find(handle),
            let lower = try? open(inode, PASSHSM_O_PATH)
        else { return nil }
        inode.state.withLock { state in
            state.isUnlinked = true
            state.noteUserChange()
        }
        return Removal(inode: inode, lower: lower)
    }

    func readlink(_ reply: consuming Reply, _ node: UInt64) {
        do throws(Errno) {
            let file = try open(inode(node), PASSHSM_O_PATH | O_NOFOLLOW)
            var target = [CChar](repeating: 0, count: Int(PATH_MAX))
            let count = try check { readlinkat(file.raw, "", &target, target.count) }
            reply.bytes(target[..<count].map { UInt8(bitPattern: $0) })
        } catch { reply.error(error) }
    }
}
