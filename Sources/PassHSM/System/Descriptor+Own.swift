import Glibc

/// Files and folders that are believed only because nobody but this process's user can have changed them.
extension Descriptor {
    /// Opens `name` in `directory`: a regular file with one name, of this process's user (geteuid(2)), that no other user may
    /// write. Symlinks are not followed, and a FIFO in its place holds nobody up.
    ///
    /// O_TRUNC is done after the checks: what is refused keeps its content. Safe on every thread.
    ///
    /// - Throws: EPERM for what is not such a file, and what openat(2) throws, such as ELOOP for a symlink.
    package static func openOwn(
        at directory: Descriptor, _ name: UnsafePointer<CChar>, _ flags: Int32
    ) throws(Errno) -> Descriptor {
        let file = try open(
            at: directory.raw, name, flags & ~O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode: 0o600)
        let status = try file.stat()
        // Without a name: removed since it was opened.
        guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink <= 1, Self.isOwn(status) else {
            throw Errno(rawValue: EPERM)
        }
        if flags & O_TRUNC != 0 { try file.truncate(to: 0) }
        return file
    }

    /// Opens the directory `name` in `directory` for reading. It must belong to this process's user, and no other user may
    /// change what is in it. Symlinks are not followed.
    ///
    /// - Throws: EPERM for a directory that is not such a one, and what openat(2) throws, such as ENOTDIR for a symlink.
    package static func openOwnFolder(
        at directory: Descriptor, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Descriptor {
        let folder = try open(at: directory.raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        guard isOwn(try folder.stat()) else { throw Errno(rawValue: EPERM) }
        return folder
    }

    /// Whether what has this status belongs to this process's user, and neither its group nor others may write it. An access
    /// control list shows in the group's bits.
    package static func isOwn(_ status: stat) -> Bool {
        status.st_uid == geteuid() && status.st_mode & (S_IWGRP | S_IWOTH) == 0
    }
}
