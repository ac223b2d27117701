import Glibc

/// Reads the names in an open directory, a buffer at a time, in the order of the file system. `.` and `..` are left
/// out.
///
/// The descriptor is passed to each call, so that it may be closed and opened again between calls: see ``suspend()``.
package struct DirectoryCursor {
    package struct Entry: Sendable {
        /// Without NUL.
        package let name: [UInt8]
        /// d_type; DT_UNKNOWN where the file system does not tell the type.
        package let type: UInt8
        package let inode: UInt64
    }

    private static let bufferSize = 64 << 10

    private var buffer: [UInt8] = []
    private var position = 0
    private var end = 0
    /// d_off of the last entry that was returned: the position to continue at after ``suspend()``.
    private var cookie = 0
    private var mustSeek = false

    package init() {}

    /// The next name; nil at the end.
    package mutating func next(in directory: Descriptor) throws(Errno) -> Entry? {
        while true {
            if position >= end, try !refill(directory) { return nil }
            if let entry = parse() { return entry }
        }
    }

    /// Frees the buffer. The next call of ``next(in:)`` seeks to the same place, in whichever descriptor of the
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
        end = try buffer.withMutableBytes { bytes throws(Errno) in try DirectoryReader.fill(bytes, from: directory) }
        return end > 0
    }

    /// The entry at `position`; nil for `.` and `..`.
    private mutating func parse() -> Entry? {
        buffer.withUnsafeBytes { bytes in
            let filled = UnsafeRawBufferPointer(rebasing: bytes[..<end])
            guard let (entry, following) = DirectoryReader.entry(in: filled, at: position) else {
                position = end
                return nil
            }
            position = following
            cookie = entry.next
            if entry.isDotOrDotDot { return nil }
            let name = UnsafeRawBufferPointer(start: entry.name, count: strlen(entry.name))
            return Entry(name: Array(name), type: entry.type, inode: entry.inode)
        }
    }
}
