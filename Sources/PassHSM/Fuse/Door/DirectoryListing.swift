import CFuse
import Glibc
import HSMSystem

/// The entries of one answer to READDIR or READDIRPLUS.
package struct DirectoryListing: ~Copyable {
    private let buffer: UnsafeMutableRawBufferPointer
    private var used = 0

    /// - Parameter size: the caller's room, in bytes.
    package init(size: Int) { buffer = .allocate(byteCount: size, alignment: 8) }

    deinit { buffer.deallocate() }

    package var isEmpty: Bool { used == 0 }

    /// The filled part. Valid as long as the listing.
    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[..<used]) }

    /// Whether an entry with this name fits.
    ///
    /// - Parameter plus: an entry of READDIRPLUS.
    package func hasRoom(for name: Name, plus: Bool) -> Bool { Self.size(name, plus: plus) <= buffer.count - used }

    /// Appends an entry of READDIR. Returns false when there is no room.
    package mutating func append(_ entry: DirectoryReader.Entry) -> Bool {
        guard hasRoom(for: entry.name, plus: false) else { return false }
        put(entry, inode: UInt64(entry.inode), type: UInt32(entry.type), at: used)
        used += Self.size(entry.name, plus: false)
        return true
    }

    /// Appends an entry of READDIRPLUS. Returns false when there is no room.
    ///
    /// - Parameter found: the reference that the kernel gets; nil for an entry without one. Of that the kernel takes
    ///   only the name, the inode number and the type.
    package mutating func append(_ entry: DirectoryReader.Entry, _ found: Entry?) -> Bool {
        guard hasRoom(for: entry.name, plus: true) else { return false }
        var out = fuse_entry_out()
        if let found {
            out = fuse_entry_out(found)
        } else {
            out.attr.ino = UInt64(entry.inode)
            out.attr.mode = UInt32(entry.type) << 12
        }
        buffer.storeBytes(of: out, toByteOffset: used, as: fuse_entry_out.self)
        put(entry, inode: out.attr.ino, type: out.attr.mode >> 12, at: used + MemoryLayout<fuse_entry_out>.size)
        used += Self.size(entry.name, plus: true)
        return true
    }

    private static let headSize = MemoryLayout<fuse_dirent>.size

    /// The name follows the fixed part, and the next entry begins at a multiple of eight (FUSE_DIRENT_ALIGN).
    private static func size(_ name: Name, plus: Bool) -> Int {
        let size = headSize + (plus ? MemoryLayout<fuse_entry_out>.size : 0) + strlen(name)
        return (size + 7) & ~7
    }

    private func put(_ entry: DirectoryReader.Entry, inode: UInt64, type: UInt32, at offset: Int) {
        let length = strlen(entry.name)
        var head = fuse_dirent()
        head.ino = inode
        head.off = UInt64(bitPattern: Int64(entry.next))
        head.namelen = UInt32(length)
        head.type = type
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[offset...])
        room.storeBytes(of: head, as: fuse_dirent.self)
        guard let name = room.baseAddress.map({ $0 + Self.headSize }) else { return }
        memcpy(name, entry.name, length)
        memset(name + length, 0, (length + 7 & ~7) - length)
    }
}
