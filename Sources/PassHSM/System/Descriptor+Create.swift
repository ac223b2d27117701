import CLinux
import Glibc

/// Calls that make, change and remove names in a directory. A name is one component in bytes, without NUL. Symlinks are
/// never followed.
extension Descriptor {
    /// open(2) with O_TMPFILE: a regular file in this directory's file system that has no name yet.
    ///
    /// - Throws: EOPNOTSUPP, EISDIR or EINVAL where the file system does not support that.
    package func makeUnnamedFile(mode: mode_t) throws(Errno) -> Descriptor {
        try Descriptor.open(at: raw, ".", PASSHSM_O_TMPFILE | O_RDWR, mode: mode)
    }

    /// openat(2) with O_CREAT and O_EXCL, for reading and writing.
    package func makeFile(_ name: [UInt8], mode: mode_t) throws(Errno) -> Descriptor {
        try withName(name) { text throws(Errno) in
            try Descriptor.open(at: raw, text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
        }
    }

    /// linkat(2): gives this descriptor's inode the name `name`.
    ///
    /// - Throws: EEXIST when the name exists.
    package func link(into directory: Descriptor, _ name: [UInt8]) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in
            try withProcPath { path throws(Errno) in
                try check { linkat(AT_FDCWD, path, directory.raw, text, AT_SYMLINK_FOLLOW) }
            }
        }
    }

    /// linkat(2) from the name `old` of this directory.
    package func link(_ old: [UInt8], into directory: Descriptor, _ new: [UInt8]) throws(Errno) {
        _ = try withName(old) { old throws(Errno) in
            try withName(new) { new throws(Errno) in try check { linkat(raw, old, directory.raw, new, 0) } }
        }
    }

    /// renameat2(2). `replacing: false` is RENAME_NOREPLACE. On a file system without that flag, the call checks first
    /// whether the name exists.
    package func rename(
        _ old: [UInt8], to directory: Descriptor, _ new: [UInt8], replacing: Bool
    ) throws(Errno) {
        _ = try withName(old) { old throws(Errno) in
            try withName(new) { text throws(Errno) in
                if replacing { return try check { renameat(raw, old, directory.raw, text) } }
                do throws(Errno) {
                    return try check { passhsm_renameat2(raw, old, directory.raw, text, 1) }
                } catch {
                    guard error.rawValue == EINVAL || error.rawValue == ENOSYS else { throw error }
                    if (try? directory.stat(new)) != nil { throw Errno(rawValue: EEXIST) }
                    return try check { renameat(raw, old, directory.raw, text) }
                }
            }
        }
    }

    /// mkdirat(2)
    package func makeDirectory(_ name: [UInt8], mode: mode_t) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in try check { mkdirat(raw, text, mode) } }
    }

    /// symlinkat(2)
    package func makeSymlink(_ name: [UInt8], to target: [UInt8]) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in
            try withName(target) { target throws(Errno) in try check { symlinkat(target, raw, text) } }
        }
    }

    /// mknodat(2)
    package func makeNode(_ name: [UInt8], mode: mode_t, device: UInt64) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in try check { mknodat(raw, text, mode, dev_t(device)) } }
    }

    /// unlinkat(2)
    package func unlink(_ name: [UInt8]) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in try check { unlinkat(raw, text, 0) } }
    }

    /// unlinkat(2) with AT_REMOVEDIR.
    package func removeDirectory(_ name: [UInt8]) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in try check { unlinkat(raw, text, AT_REMOVEDIR) } }
    }

    /// fchownat(2). The empty name stands for the descriptor itself.
    package func setOwner(_ name: [UInt8] = [], owner: UInt32, group: UInt32) throws(Errno) {
        let flags = AT_SYMLINK_NOFOLLOW | PASSHSM_AT_EMPTY_PATH
        _ = try withName(name) { text throws(Errno) in try check { fchownat(raw, text, owner, group, flags) } }
    }

    /// fchmod(2)
    package func setMode(_ mode: mode_t) throws(Errno) { _ = try check { fchmod(raw, mode) } }

    /// fchmodat(2), which follows symlinks: only for names that no other user can replace.
    package func setMode(ofOwn name: [UInt8], _ mode: mode_t) throws(Errno) {
        _ = try withName(name) { text throws(Errno) in try check { fchmodat(raw, text, mode, 0) } }
    }

    /// utimensat(2) for a name, or futimens(2) for the descriptor itself. Nil leaves a time as it is.
    package func setTimes(of name: [UInt8]?, access: timespec?, modification: timespec?) throws(Errno) {
        let (access, modification) = (access ?? FileTime.omit, modification ?? FileTime.omit)
        guard let name else { return try setTimes(access: access, modification: modification) }
        let times = [access, modification]
        _ = try withName(name) { text throws(Errno) in
            try times.withUnsafeBufferPointer { times throws(Errno) in
                try check { utimensat(raw, text, times.baseAddress, AT_SYMLINK_NOFOLLOW) }
            }
        }
    }
}
