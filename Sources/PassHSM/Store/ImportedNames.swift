import Glibc
import HSMSystem

/// The names that the last import found in the source and that the tree had then, with the metadata that the import
/// set: `.passhsm/imported`.
///
/// A name of this list that is no longer in the tree was removed or renamed locally. The list takes 16 bytes a name, in
/// memory and on disk: it keeps only hashes of paths and metadata. A value; not thread-safe while it changes.
package struct ImportedNames: Sendable {
    package struct Entry: Sendable, Hashable, BitwiseCopyable {
        /// ``ImportedNames/hash(_:)`` of the path below the top.
        package let path: UInt64
        /// The hash of owner, mode and ACLs as the import set them; 0: they were local, or are not known.
        package var rights: UInt32
        /// The hash of the other attributes; 0 as above.
        package var attributes: UInt32

        package init(path: UInt64, rights: UInt32 = 0, attributes: UInt32 = 0) {
            self.path = path
            self.rights = rights
            self.attributes = attributes
        }
    }

    /// Ascending by hash.
    package private(set) var entries: [Entry]

    /// - Parameter entries: in any order. If several have the same path, the first counts. Moved in, they take no more
    ///   memory than they have.
    package init(_ entries: consuming [Entry] = []) {
        // A stable sort: the first stays the first.
        entries.sort { $0.path < $1.path }
        var count = 0
        for index in entries.indices where count == 0 || entries[count - 1].path != entries[index].path {
            entries[count] = entries[index]
            count += 1
        }
        entries.removeLast(entries.count - count)
        self.entries = entries
    }

    package var isEmpty: Bool { entries.isEmpty }

    /// The entry of the path with this hash.
    package subscript(path: UInt64) -> Entry? {
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].path < path { low = middle + 1 } else { high = middle }
        }
        return low < entries.count && entries[low].path == path ? entries[low] : nil
    }

    /// The 64-bit FNV-1a hash, with its bits mixed.
    package static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var hash = bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 as UInt64 }
        hash = (hash ^ hash >> 33) &* 0xff51_afd7_ed55_8ccd
        return hash ^ hash >> 33
    }

    /// The low 32 bits of that hash, never 0.
    package static func shortHash(_ bytes: some Sequence<UInt8>) -> UInt32 {
        max(1, UInt32(truncatingIfNeeded: hash(bytes)))
    }
}

// MARK: The file

extension ImportedNames {
    private static let file = "imported"
    private static let magic = Array("PHSMNAM1".utf8)
    private static let headerSize = 12
    private static let entrySize = 16
    /// The largest file in bytes: it has more names than a file system holds.
    private static let maxBytes = 1 << 40

    /// Reads a whole file with the right checksum; nil for anything else.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.headerSize, (bytes.count - Self.headerSize) % Self.entrySize == 0,
            bytes.starts(with: Self.magic)
        else { return nil }
        let (entries, isRight) = bytes.withUnsafeBytes { all -> ([Entry], Bool) in
            let body = UnsafeRawBufferPointer(rebasing: all[Self.headerSize...])
            let checksum = UInt32(littleEndian: all.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
            var entries: [Entry] = []
            entries.reserveCapacity(body.count / Self.entrySize)
            for offset in stride(from: 0, to: body.count, by: Self.entrySize) {
                entries.append(
                    Entry(
                        path: UInt64(littleEndian: body.loadUnaligned(fromByteOffset: offset, as: UInt64.self)),
                        rights: UInt32(littleEndian: body.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)),
                        attributes: UInt32(
                            littleEndian: body.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))))
            }
            return (entries, checksum == CRC32C.of(body))
        }
        guard isRight else { return nil }
        self.init(entries)
    }

    /// The file's bytes, for tests.
    var encoded: [UInt8] { entries.withUnsafeBytes { Self.header(of: $0) + Array($0) } }

    /// - Parameter body: the entries, which are in memory as they are in the file: without gaps, and little-endian on every
    ///   machine that Swift for Linux runs on.
    private static func header(of body: UnsafeRawBufferPointer) -> [UInt8] {
        assert(MemoryLayout<Entry>.stride == entrySize && UInt16(1).littleEndian == 1)
        var writer = ByteWriter()
        writer.put(magic)
        writer.put(CRC32C.of(body))
        return writer.bytes
    }

    static func read(from directory: Descriptor) throws(StoreError) -> ImportedNames? {
        do throws(Errno) {
            let file = try Descriptor.openOwn(at: directory, Self.file, O_RDONLY)
            var bytes = [UInt8](repeating: 0, count: min(try file.stat().st_size, maxBytes))
            _ = try bytes.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: 0) }
            return ImportedNames(bytes) ?? ImportedNames()
        } catch {
            if error.rawValue == ENOENT { return nil }
            throw StoreError("the list of imported names cannot be read: \(error.text)")
        }
    }

    func write(to directory: Descriptor) throws(StoreError) {
        do throws(Errno) {
            let new = "imported.new"
            let file = try Descriptor.openOwn(at: directory, new, O_WRONLY | O_CREAT | O_TRUNC)
            try entries.withUnsafeBufferPointer { (entries) throws(Errno) in
                let body = UnsafeRawBufferPointer(entries)
                try Self.header(of: body).withBytes { header throws(Errno) in try file.write(header, at: 0) }
                try file.write(body, at: Self.headerSize)
            }
            try file.fsync()
            _ = try check { renameat(directory.raw, new, directory.raw, Self.file) }
            try directory.fsync()
        } catch {
            throw StoreError("the list of imported names cannot be written: \(error.text)")
        }
    }
}

extension Store {
    /// The list of the last import; nil when there is none. A damaged list counts as an empty one.
    package func importedNames() throws(StoreError) -> ImportedNames? { try ImportedNames.read(from: directory) }

    /// Replaces the list atomically; durable when it returns.
    package func save(_ names: ImportedNames) throws(StoreError) { try names.write(to: directory) }
}
