import Glibc
import HSMCore
import HSMSystem

/// The place of an object in ``ObjectTable``, as a record has it.
struct ObjectReference: Hashable, Sendable {
    var table: UInt32
    /// In bytes, from the start of the file.
    var offset: UInt64
    /// The entry's checksum: an entry of another object at this place is not taken for the right one.
    var checksum: UInt32
}

/// `.passhsm/objects/`: key, version and digest of the remote objects that do not fit in records. Its files only grow,
/// and one of them takes new entries; see FORMAT.md.
///
/// Safe on every thread. Methods block on the lower file system.
final class ObjectTable: Sendable {
    static let folder = "objects"
    static let start = Array("PHSMOBJ1".utf8)
    /// The largest content of an entry, in bytes.
    private static let maxCount = 1 << 20
    /// The bound of open files. There are more tables only during a compaction, or in a folder that somebody has
    /// forged.
    private static let maxOpen = 8

    private struct Table {
        let number: UInt32
        let file: Descriptor
        /// The offset for the next entry.
        var end: Int
        /// The offset before which everything is on disk.
        var synced: Int
    }

    private struct State {
        var readers: [UInt32: Descriptor] = [:]
        var writer: Table?
        /// Tables up to this number take no more entries, whatever they contain.
        var closed: UInt32 = 0
    }

    private let parent: Descriptor
    /// Held over appending and syncing. No other lock is taken inside.
    private let lock = Lock()
    private nonisolated(unsafe) var state = State()  // guarded by lock

    /// - Parameter parent: `.passhsm`. The folder is made there when it is first needed.
    init(in parent: Descriptor) { self.parent = parent }

    /// Nil when the folder does not exist.
    func openFolder() throws(Errno) -> Descriptor? {
        do throws(Errno) { return try Descriptor.openOwnFolder(at: parent, Self.folder) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
    }

    // MARK: Reading

    /// - Parameter size: of the remote object; a record knows it.
    /// - Throws: `RecordError` when there is no such entry, or another one at its place.
    func object(at reference: ObjectReference, size: Int) throws(RecordError) -> RemoteObject {
        let content: [UInt8]
        do throws(Errno) {
            content = try entry(at: reference)
        } catch {
            throw RecordError("the remote object's key cannot be read in .passhsm/\(Self.folder): \(error.text)")
        }
        guard let object = RemoteObject(stored: content, size: size) else {
            throw RecordError("the remote object's key in .passhsm/\(Self.folder) is damaged")
        }
        return object
    }

    /// - Throws: EILSEQ where the entry is missing or damaged.
    private func entry(at reference: ObjectReference) throws(Errno) -> [UInt8] {
        guard let offset = Int(exactly: reference.offset), offset >= 0 else { throw Errno(rawValue: EILSEQ) }
        let file = try reader(of: reference.table)
        var bytes = try Self.read(512, at: offset, of: file)
        guard let count = Entry.count(of: bytes) else { throw Errno(rawValue: EILSEQ) }
        if count > bytes.count { bytes = try Self.read(count, at: offset, of: file) }
        guard let entry = Entry(bytes: bytes), entry.checksum == reference.checksum else {
            throw Errno(rawValue: EILSEQ)
        }
        return entry.content
    }

    private static func read(_ count: Int, at offset: Int, of file: Descriptor) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: offset) }
        return Array(bytes[..<found])
    }

    private func reader(of table: UInt32) throws(Errno) -> Descriptor {
        try lock.withLock { () throws(Errno) in
            if let file = state.readers[table] { return file }
            guard let folder = try openFolder() else { throw Errno(rawValue: ENOENT) }
            let file = try Descriptor.openOwn(at: folder, "\(table)", O_RDONLY)
            if state.readers.count >= Self.maxOpen { state.readers = [:] }
            state.readers[table] = file
            return file
        }
    }

    // MARK: Writing

    /// Adds an entry. A record may refer to it only after ``sync(_:)``.
    ///
    /// - Throws: E2BIG for a key that is longer than any path; errors of the write.
    func append(_ object: RemoteObject) throws(Errno) -> ObjectReference {
        let content = object.storedBytes
        guard content.count <= Self.maxCount else { throw Errno(rawValue: E2BIG) }
        let entry = Entry(content)
        return try lock.withLock { () throws(Errno) in
            var table = try writerLocked()
            let bytes = entry.bytes
            try bytes.withBytes { buffer throws(Errno) in try table.file.write(buffer, at: table.end) }
            let reference = ObjectReference(
                table: table.number, offset: UInt64(table.end), checksum: entry.checksum)
            table.end += bytes.count
            state.writer = table
            return reference
        }
    }

    /// Waits until the entry at `reference`, which this object has added, is on disk.
    ///
    /// - Throws: the error of the sync; the entry may then be lost, and a record may not refer to it.
    func sync(_ reference: ObjectReference) throws(Errno) {
        try lock.withLock { () throws(Errno) in
            guard var table = state.writer, table.number == reference.table else { throw Errno(rawValue: EIO) }
            if reference.offset < UInt64(table.synced) { return }
            let end = table.end
            do throws(Errno) {
                try Failpoint.reach("objects.sync")
                try table.file.fdatasync()
            } catch {
                // The next sync would not fail again, and nothing tells which entries were lost.
                state.closed = table.number
                state.writer = nil
                throw error
            }
            table.synced = end
            state.writer = table
        }
    }

    /// Begins a new table, which takes all new entries from here on; returns its number.
    func beginTable() throws(Errno) -> UInt32 {
        try lock.withLock { () throws(Errno) in
            let old = try writerLocked()
            try old.file.fdatasync()
            state.closed = old.number
            state.writer = nil
            return try writerLocked().number
        }
    }

    /// Removes the tables before `table`, except those that records refer to.
    func removeTables(before table: UInt32, but needed: Set<UInt32>) throws(Errno) {
        guard let folder = try openFolder() else { return }
        for number in try Self.numbers(in: folder) where number < table && !needed.contains(number) {
            lock.withLock { state.readers[number] = nil }
            try folder.unlink(Array("\(number)".utf8))
        }
    }

    /// The size of all tables together, in bytes.
    func size() throws(Errno) -> Int {
        guard let folder = try openFolder() else { return 0 }
        var sum = 0
        for number in try Self.numbers(in: folder) {
            sum += try folder.stat(Array("\(number)".utf8)).st_size
        }
        return sum
    }

    private static func numbers(in folder: Descriptor) throws(Errno) -> [UInt32] {
        try DirectoryReader.names(in: folder).compactMap { UInt32(String(decoding: $0.dropLast(), as: UTF8.self)) }
    }

    private func writerLocked() throws(Errno) -> Table {
        if let table = state.writer { return table }
        let folder = try makeFolder()
        let last = try Self.numbers(in: folder).max() ?? 0
        let number = max(1, last, state.closed == .max ? 1 : state.closed + 1)
        let file = try Descriptor.openOwn(at: folder, "\(number)", O_RDWR | O_CREAT)
        var end = try file.stat().st_size
        if end < Self.start.count {
            try Self.start.withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
            try file.fsync()
            try folder.fsync()
            end = Self.start.count
        }
        // Records refer only to synced entries. Other bytes at the end may be left from a crash, and are never used.
        let table = Table(number: number, file: file, end: end, synced: end)
        state.writer = table
        return table
    }

    private func makeFolder() throws(Errno) -> Descriptor {
        if let folder = try openFolder() { return folder }
        try parent.makeDirectory(Array(Self.folder.utf8), mode: 0o700)
        try parent.fsync()
        return try Descriptor.openOwnFolder(at: parent, Self.folder)
    }
}

extension ObjectTable {
    /// An entry as it is on disk: CRC32C of the rest, count of bytes, content.
    struct Entry {
        let checksum: UInt32
        let content: [UInt8]

        init(_ content: [UInt8]) {
            self.content = content
            checksum = CRC32C.of(Self.signed(content))
        }

        /// Decodes an entry, which other bytes may follow; nil when it is cut off or damaged.
        init?(bytes: [UInt8]) {
            var reader = ByteReader(bytes)
            guard let checksum = reader.take(UInt32.self),
                let content = reader.takeVariable().flatMap({ Int(exactly: $0) }).flatMap({ reader.take($0) })
            else { return nil }
            self.init(Array(content))
            guard self.checksum == checksum else { return nil }
        }

        private static func signed(_ content: [UInt8]) -> [UInt8] {
            var writer = ByteWriter()
            writer.putVariable(UInt64(content.count))
            writer.put(content)
            return writer.bytes
        }

        var bytes: [UInt8] {
            var writer = ByteWriter()
            writer.put(checksum)
            writer.put(Self.signed(content))
            return writer.bytes
        }

        /// The size in bytes of the entry that `bytes` begin with; nil when it cannot be one.
        static func count(of bytes: [UInt8]) -> Int? {
            var reader = ByteReader(bytes)
            guard reader.take(UInt32.self) != nil,
                let count = reader.takeVariable().flatMap({ Int(exactly: $0) }), count <= maxCount
            else { return nil }
            var writer = ByteWriter()
            writer.putVariable(UInt64(count))
            return 4 + writer.bytes.count + count
        }
    }
}

extension RemoteObject {
    /// Everything except the size: digest, version, key.
    var storedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.put(digest?.algorithm.rawValue ?? 0)
        if let digest { writer.put(digest.bytes) }
        writer.put(UInt8(min(version.bytes.count, 255)))
        writer.put(version.bytes.prefix(255))
        writer.put(key.bytes)
        return writer.bytes
    }

    /// Decodes ``storedBytes``; nil when `bytes` are something else.
    init?(stored bytes: [UInt8], size: Int) {
        var reader = ByteReader(bytes)
        guard let number = reader.take(UInt8.self) else { return nil }
        var digest: RemoteDigest?
        if number != 0 {
            guard let algorithm = RemoteDigest.Algorithm(rawValue: number),
                let value = reader.take(algorithm.count)
            else { return nil }
            digest = RemoteDigest(algorithm, value)
        }
        guard let version = reader.takeCounted() else { return nil }
        self.init(
            key: RemoteKey(Array(reader.takeRest())), version: RemoteVersion(Array(version)), size: size, digest: digest
        )
    }
}
