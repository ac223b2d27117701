import CLinux
import Glibc

/// Reads the entries of a directory with getdents64(2).
package enum DirectoryReader {
    /// One entry. `name` is valid during the call that hands it out.
    package struct Entry {
        package let inode: UInt64
        /// The position after this entry, for lseek(2).
        package let next: Int
        /// DT_REG, DT_DIR and so on; DT_UNKNOWN where the file system does not tell the type.
        package let type: UInt8
        package let name: UnsafePointer<CChar>

        package var isDotOrDotDot: Bool { name[0] == 46 && (name[1] == 0 || (name[1] == 46 && name[2] == 0)) }
    }

    /// getdents64(2) into `buffer`, from the directory's position on. Returns the number of bytes, 0 at the end.
    package static func fill(
        _ buffer: UnsafeMutableRawBufferPointer, from directory: Descriptor
    ) throws(Errno) -> Int {
        try check { passhsm_getdents64(directory.raw, buffer.baseAddress, buffer.count) }
    }

    /// The entry at `offset` of what ``fill(_:from:)`` put into `buffer`, and the offset of the one after it.
    package static func entry(in buffer: UnsafeRawBufferPointer, at offset: Int) -> (Entry, following: Int)? {
        let header = MemoryLayout<passhsm_dirent>.size
        guard let base = buffer.baseAddress, offset + header < buffer.count else { return nil }
        let raw = buffer.loadUnaligned(fromByteOffset: offset, as: passhsm_dirent.self)
        let entry = Entry(
            inode: raw.d_ino, next: Int(raw.d_off), type: raw.d_type,
            name: (base + offset + header).assumingMemoryBound(to: CChar.self))
        return (entry, offset + Int(raw.d_reclen))
    }

    /// Calls `body` with every current entry of `directory`, until it returns false.
    private static func forEach(in directory: Descriptor, _ body: (Entry) -> Bool) throws(Errno) {
        let reader = try directory.reopen(O_RDONLY | O_DIRECTORY)
        var buffer = [UInt8](repeating: 0, count: 32 << 10)
        while true {
            let count = try buffer.withMutableBytes { bytes throws(Errno) in try fill(bytes, from: reader) }
            if count == 0 { return }
            let goesOn = buffer.withUnsafeBytes { bytes in
                var offset = 0
                let filled = UnsafeRawBufferPointer(rebasing: bytes[..<count])
                while let (entry, following) = entry(in: filled, at: offset) {
                    offset = following
                    if !body(entry) { return false }
                }
                return true
            }
            if !goesOn { return }
        }
    }

    /// All current names in `directory`, each with its NUL, without `.` and `..`.
    package static func names(in directory: Descriptor) throws(Errno) -> [[UInt8]] {
        var result: [[UInt8]] = []
        try forEach(in: directory) { entry in
            if !entry.isDotOrDotDot {
                result.append(Array(UnsafeRawBufferPointer(start: entry.name, count: strlen(entry.name) + 1)))
            }
            return true
        }
        return result
    }

    /// Whether `directory` has no entry other than `.` and `..`.
    package static func isEmpty(_ directory: Descriptor) throws(Errno) -> Bool {
        var isEmpty = true
        try forEach(in: directory) { entry in
            isEmpty = entry.isDotOrDotDot
            return isEmpty
        }
        return isEmpty
    }

    /// Whether an entry of `directory` has this inode number.
    package static func has(inode: UInt64, in directory: Descriptor) throws(Errno) -> Bool {
        var isFound = false
        try forEach(in: directory) { entry in
            isFound = entry.inode == inode
            return !isFound
        }
        return isFound
    }
}

extension DirectoryReader {
    /// The names in a directory of /proc or of this program, without those that are not UTF-8. Empty when the directory
    /// cannot be read.
    package static func texts(in directory: Descriptor?) -> [String] {
        guard let directory, let names = try? names(in: directory) else { return [] }
        return names.compactMap { String(validating: $0.dropLast(), as: UTF8.self) }
    }

    /// The same by path.
    package static func texts(in path: String) -> [String] {
        texts(in: try? Descriptor.open(path, O_RDONLY | O_DIRECTORY))
    }
}
