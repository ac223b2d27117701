import Glibc

/// Files and folders that are trusted because only this process's user can have changed them.
extension Descriptor {
    /// Opens `name` in `directory`. It must be a regular file with at most one name that belongs to this process's user
    /// (geteuid(2)) and that no other user may write. Symlinks are not followed, and a FIFO in its place does not block
    /// the call.
    ///
    /// O_TRUNC is applied after the checks, so that a refused file keeps its content. Safe on every thread.
    ///
    /// - Throws: EPERM for any other file; errors of openat(2), such as ELOOP for a symlink.
    package static func openOwn(
        at directory: Descriptor, _ name: UnsafePointer<CChar>, _ flags: Int32
    ) throws(Errno) -> Descriptor {
        let file = try open(
            at: directory.raw, name, flags & ~O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode: 0o600)
        let status = try file.stat()
        // A count of 0 means that the file was removed after it was opened.
        guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink <= 1, Self.isOwn(status) else {
            throw Errno(rawValue: EPERM)
        }
        if flags & O_TRUNC != 0 { try file.truncate(to: 0) }
        return file
    }

    /// Opens the directory `name` in `directory` for reading. It must belong to this process's user, and no other user
    /// may change its content. Symlinks are not followed.
    ///
    /// - Throws: EPERM for any other directory; errors of openat(2), such as ENOTDIR for a symlink.
    package static func openOwnFolder(
        at directory: Descriptor, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Descriptor {
        let folder = try open(at: directory.raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        guard isOwn(try folder.stat()) else { throw Errno(rawValue: EPERM) }
        return folder
    }

    /// Whether a file with this status belongs to this process's user and is not writable for its group or others.
    /// Access control lists show in the group's bits.
    package static func isOwn(_ status: stat) -> Bool {
        status.st_uid == geteuid() && status.st_mode & (S_IWGRP | S_IWOTH) == 0
    }
}
