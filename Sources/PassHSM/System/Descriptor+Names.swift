import CLinux
import Glibc

/// Calls on the names in a directory. A name is one component in bytes, without NUL. Symlinks are never followed.
extension Descriptor {
    /// Opens a directory for reading. Its access time stays as it is where the caller may ask for that.
    ///
    /// - Throws: ENOTDIR when `name` is a symlink or not a directory.
    package static func openDirectory(at directory: Descriptor, _ name: [UInt8]) throws(Errno) -> Descriptor {
        try openQuietly(at: directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    }

    /// openat(2) with O_NOATIME; without it when the caller is not the owner (EPERM).
    package static func openQuietly(
        at directory: Descriptor, _ name: [UInt8], _ flags: Int32
    ) throws(Errno) -> Descriptor {
        try withName(name) { text throws(Errno) in
            do throws(Errno) {
                return try Descriptor.open(at: directory.raw, text, flags | PASSHSM_O_NOATIME)
            } catch {
                guard error.rawValue == EPERM else { throw error }
                return try Descriptor.open(at: directory.raw, text, flags)
            }
        }
    }

    /// Opens the directory at the top of a tree with O_PATH. Symlinks in the path are followed.
    package static func openTop(_ path: [UInt8]) throws(Errno) -> Descriptor {
        try withName(path) { text throws(Errno) in try Descriptor.open(text, PASSHSM_O_PATH | O_DIRECTORY) }
    }

    /// openat(2) with O_PATH for a directory that only leads further down. Needs no permission to read it.
    ///
    /// - Throws: ENOTDIR when `name` is a symlink or not a directory.
    package static func openPlaceOfDirectory(at directory: Descriptor, _ name: [UInt8]) throws(Errno) -> Descriptor {
        try withName(name) { text throws(Errno) in
            try Descriptor.open(at: directory.raw, text, PASSHSM_O_PATH | O_DIRECTORY | O_NOFOLLOW)
        }
    }

    /// openat(2) with O_PATH: names an inode of any type. Needs no permission on the inode.
    package static func openPlace(at directory: Descriptor, _ name: [UInt8]) throws(Errno) -> Descriptor {
        try withName(name) { text throws(Errno) in
            try Descriptor.open(at: directory.raw, text, PASSHSM_O_PATH | O_NOFOLLOW)
        }
    }

    /// fstatat(2)
    package func stat(_ name: [UInt8]) throws(Errno) -> stat {
        var result = Glibc.stat()
        _ = try withName(name) { text throws(Errno) in
            try check { fstatat(raw, text, &result, AT_SYMLINK_NOFOLLOW) }
        }
        return result
    }

    /// readlinkat(2): the whole target.
    package func readLink(_ name: [UInt8]) throws(Errno) -> [UInt8] {
        // The kernel's limit for a target, with its NUL, is PATH_MAX.
        var target = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = try withName(name) { text throws(Errno) in
            try target.withUnsafeMutableBufferPointer { bytes throws(Errno) in
                guard let base = bytes.baseAddress else { throw Errno(rawValue: EINVAL) }
                return try check { readlinkat(raw, text, base, bytes.count) }
            }
        }
        return target[..<count].map { UInt8(bitPattern: $0) }
    }

    /// Calls `body` with /proc/self/fd/N/name, for calls on extended attributes, which take no directory descriptor.
    package func withProcPath<Result>(
        of name: [UInt8], _ body: (UnsafePointer<CChar>) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        try withName(Array("/proc/self/fd/\(raw)/".utf8) + name, body)
    }
}

/// Calls `body` with `name` as a C string.
package func withName<Result>(
    _ name: [UInt8], _ body: (UnsafePointer<CChar>) throws(Errno) -> Result
) throws(Errno) -> Result {
    try (name + [0]).withUnsafeBufferPointer { bytes throws(Errno) in
        guard let base = bytes.baseAddress else { throw Errno(rawValue: EINVAL) }
        return try base.withMemoryRebound(to: CChar.self, capacity: bytes.count, body)
    }
}
