import CLinux
import Glibc

/// Extended attributes by path (xattr(7)). By default, a symlink at the end of the path is not followed.
///
/// Attributes of a descriptor that may be O_PATH are reached through ``Descriptor/withProcPath(_:)`` and
/// ``Links/follow``.
package enum ExtendedAttributes {
    package enum Links: Sendable { case follow, noFollow }

    /// lgetxattr(2) or getxattr(2) into `buffer`. Returns the value's size. An empty buffer asks for the size only.
    package static func get(
        _ name: UnsafePointer<CChar>, of path: UnsafePointer<CChar>, _ links: Links = .noFollow,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(Errno) -> Int {
        try check {
            links == .follow
                ? getxattr(path, name, buffer.baseAddress, buffer.count)
                : lgetxattr(path, name, buffer.baseAddress, buffer.count)
        }
    }

    /// The whole value, whatever its size (the kernel's limit is 64 KiB).
    package static func value(
        _ name: UnsafePointer<CChar>, of path: UnsafePointer<CChar>, _ links: Links = .noFollow
    ) throws(Errno) -> [UInt8] {
        try grow { buffer throws(Errno) in try get(name, of: path, links, into: buffer) }
    }

    /// The whole value of an attribute of `file`: fgetxattr(2), or by path for O_PATH, which takes four times as long.
    package static func value(_ name: UnsafePointer<CChar>, of file: Descriptor) throws(Errno) -> [UInt8] {
        try grow { buffer throws(Errno) in
            do throws(Errno) {
                return try check { fgetxattr(file.raw, name, buffer.baseAddress, buffer.count) }
            } catch {
                guard error.rawValue == EBADF else { throw error }
                return try file.withProcPath { path throws(Errno) in try get(name, of: path, .follow, into: buffer) }
            }
        }
    }

    /// fsetxattr(2), and by path for O_PATH.
    package static func set(
        _ name: UnsafePointer<CChar>, of file: Descriptor, to value: UnsafeRawBufferPointer
    ) throws(Errno) {
        do throws(Errno) {
            _ = try check { fsetxattr(file.raw, name, value.baseAddress, value.count, 0) }
        } catch {
            guard error.rawValue == EBADF else { throw error }
            try file.withProcPath { path throws(Errno) in try set(name, of: path, .follow, to: value) }
        }
    }

    /// lsetxattr(2) or setxattr(2); `flags` are XATTR_CREATE and XATTR_REPLACE.
    package static func set(
        _ name: UnsafePointer<CChar>, of path: UnsafePointer<CChar>, _ links: Links = .noFollow,
        to value: UnsafeRawBufferPointer, flags: Int32 = 0
    ) throws(Errno) {
        _ = try check {
            links == .follow
                ? setxattr(path, name, value.baseAddress, value.count, flags)
                : lsetxattr(path, name, value.baseAddress, value.count, flags)
        }
    }

    /// lremovexattr(2) or removexattr(2).
    package static func remove(
        _ name: UnsafePointer<CChar>, of path: UnsafePointer<CChar>, _ links: Links = .noFollow
    ) throws(Errno) {
        _ = try check { links == .follow ? removexattr(path, name) : lremovexattr(path, name) }
    }

    /// llistxattr(2) or listxattr(2): the names, each with its terminating NUL, as the kernel gives them.
    package static func list(
        of path: UnsafePointer<CChar>, _ links: Links = .noFollow
    ) throws(Errno) -> [UInt8] {
        try grow { buffer throws(Errno) in
            try check {
                let text = buffer.baseAddress?.assumingMemoryBound(to: CChar.self)
                return links == .follow
                    ? listxattr(path, text, buffer.count) : llistxattr(path, text, buffer.count)
            }
        }
    }

    /// Splits the names of ``list(of:_:)``. Each still ends with its NUL, so that it can be passed on as a C string.
    package static func names(in list: [UInt8]) -> [[UInt8]] {
        list.split(separator: 0).map { Array($0) + [0] }
    }

    /// Calls `read` with larger and larger buffers until it no longer fails with ERANGE.
    private static func grow(
        _ read: (UnsafeMutableRawBufferPointer) throws(Errno) -> Int
    ) throws(Errno) -> [UInt8] {
        var size = 512
        while true {
            var value = [UInt8](repeating: 0, count: size)
            do throws(Errno) {
                let count = try value.withMutableBytes { buffer throws(Errno) in try read(buffer) }
                value.removeSubrange(count...)
                return value
            } catch {
                if error.rawValue != ERANGE || size > 1 << 20 { throw error }
                size *= 8
            }
        }
    }
}
