import CLinux
import Glibc

/// Reads the names in an open directory, a buffer at a time (getdents64(2)), in the order of the file system.
///
/// The descriptor is passed to each call, so that it may be closed and opened again between calls: see ``suspend()``.
/// `.` and `..` are left out.
package struct DirectoryReader {
    package struct Entry: Sendable {
        /// Without NUL.
        package let name: [UInt8]
        /// d_type: DT_UNKNOWN where the file system does not tell.
        package let type: Int32
        package let inode: UInt64
    }

    private static let bufferSize = 64 << 10

    private var buffer: [UInt8] = []
    private var position = 0
    private var end = 0
    /// d_off of the last entry that was returned: where reading goes on after ``suspend()``.
    private var cookie = 0
    private var mustSeek = false

    package init() {}

    /// The next name; nil at the end.
    package mutating func next(in directory: Descriptor) throws(Errno) -> Entry? {
        while true {
            if position >= end, try !refill(directory) { return nil }
            let entry = parse()
            if entry.name != [0x2e] && entry.name != [0x2e, 0x2e] { return entry }
        }
    }

    /// Frees the buffer. The next call of ``next(in:)`` seeks to the same place, in whatever descriptor of the
    /// directory it is given.
    package mutating func suspend() {
        buffer = []
        (position, end) = (0, 0)
        mustSeek = true
    }

    private mutating func refill(_ directory: Descriptor) throws(Errno) -> Bool {
        if mustSeek {
            let cookie = cookie
            _ = try check { lseek(directory.raw, cookie, SEEK_SET) }
            mustSeek = false
        }
        if buffer.isEmpty { buffer = [UInt8](repeating: 0, count: Self.bufferSize) }
        (position, end) = (0, 0)
        end = try buffer.withUnsafeMutableBufferPointer { bytes throws(Errno) in
            try check { passhsm_getdents64(directory.raw, bytes.baseAddress, bytes.count) }
        }
        return end > 0
    }

    private mutating func parse() -> Entry {
        buffer.withUnsafeBytes { bytes in
            let header = bytes.loadUnaligned(fromByteOffset: position, as: passhsm_dirent.self)
            let record = bytes[position..<position + Int(header.d_reclen)]
            let tail = record.dropFirst(MemoryLayout<passhsm_dirent>.size)
            position = record.endIndex
            cookie = Int(header.d_off)
            return Entry(
                name: Array(tail.prefix { $0 != 0 }), type: Int32(header.d_type), inode: header.d_ino)
        }
    }
}
