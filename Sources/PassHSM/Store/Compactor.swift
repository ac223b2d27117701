import Glibc
import HSMCore
import HSMSystem

/// Frees the space of remote objects to which no record refers any more: moves the other objects from their tables to a
/// new table, and removes the old tables.
///
/// One thread uses it, while nobody else uses the store. Whenever it ends, is killed, or loses power, each record
/// refers to an entry that is on disk: it changes a record only when the new entry is durable, and removes a table only
/// when it has seen that all records of the tree durably refer to other tables.
package struct Compactor {
    /// Bytes of garbage up to which nothing is compacted.
    package static let usualMinGarbage = 8 << 20

    private let store: Store
    private let minGarbage: Int

    package init(_ store: Store, minGarbage: Int = Self.usualMinGarbage) {
        self.store = store
        self.minGarbage = Failpoint.isOn("compact.small") ? 1 : minGarbage
    }

    /// Compacts the tables if more than half of their bytes, and more than the minimum, are garbage.
    ///
    /// - Parameter expected: the caller's estimate of the bytes of entries in use. The records are read only if this
    ///   estimate leaves enough garbage; zero reads them in any case.
    /// - Returns: how many bytes were freed.
    /// - Throws: `StoreError` when a record cannot be read or written, or the disk fails. All records are then as valid
    ///   as before.
    package func run(expecting expected: Int) throws(StoreError) -> Int {
        let before = try size()
        guard isTooMuch(before, used: expected) else { return 0 }
        let found = try survey()
        guard isTooMuch(before, used: found.used) else { return 0 }
        let table: UInt32
        do throws(Errno) {
            try Failpoint.reach("compact.begin")
            table = try store.objects.beginTable()
            try Failpoint.reach("compact.begun")
        } catch { throw Self.failure(error) }
        try moveEntries(to: table)
        // All records refer durably to the new table now, except those that could not be changed.
        let needed = try survey().tables
        do throws(Errno) {
            try Failpoint.reach("compact.remove")
            try store.objects.removeTables(before: table, but: needed)
            try Failpoint.reach("compact.removed")
        } catch { throw Self.failure(error) }
        return max(0, before - (try size()))
    }

    private func isTooMuch(_ size: Int, used: Int) -> Bool { size - used > max(used, minGarbage) }

    private func size() throws(StoreError) -> Int {
        do throws(Errno) { return try store.objects.size() } catch { throw Self.failure(error) }
    }

    private static func failure(_ error: Errno) -> StoreError {
        StoreError("the tables of remote objects cannot be compacted: \(error.text)")
    }

    private func moveEntries(to table: UInt32) throws(StoreError) {
        let writer = RecordWriter(store)
        try forEachRecord { place, status, record throws(Errno) in
            guard let reference = record.reference, reference.table < table else { return }
            // Backups look at the change times of files only.
            let isFile = status.st_mode & S_IFMT == S_IFREG
            try writer.replace(with: record.at(nil), of: place, showing: isFile ? record.changeTime(status) : nil)
        }
        do throws(Errno) {
            try Failpoint.reach("compact.flush")
            try writer.flush()
            try Failpoint.reach("compact.flushed")
            try store.tree.directory.original.syncFileSystem()
            try Failpoint.reach("compact.synced")
        } catch { throw Self.failure(error) }
    }

    // MARK: Records

    private struct Survey {
        /// Bytes of the entries that records refer to.
        var used = 0
        /// The tables that these entries are in.
        var tables: Set<UInt32> = []
    }

    private func survey() throws(StoreError) -> Survey {
        var result = Survey()
        try forEachRecord { _, _, record in
            guard let reference = record.reference else { return }
            result.tables.insert(reference.table)
            result.used.add(saturating: ObjectTable.Entry(record.object.storedBytes).bytes.count)
        }
        return result
    }

    /// Calls `body` with the record of each name in the tree, and of the top.
    ///
    /// - Throws: `StoreError` when a record cannot be read, or a name cannot be looked at: its record may refer to any
    ///   entry.
    private func forEachRecord(
        _ body: (_ place: Descriptor, _ status: stat, _ record: Record) throws(Errno) -> Void
    ) throws(StoreError) {
        // Names beside the tree have records too, and may come back into the tree.
        if let name = store.namesOutside().first {
            throw StoreError("\(BytePath(name)) is beside the tree, where an import left it")
        }
        var path: [UInt8] = []
        var linked: Set<ino_t> = []
        do {
            try visit(store.tree.root, store.tree.root.stat(), body)
            var walk = try NameWalk(top: store.tree.root, hiding: Store.folder)
            while let step = try walk.next() {
                guard case .name(let entry) = step else {
                    path = walk.path
                    if case .unlisted(let error) = step { throw error }
                    continue
                }
                path = walk.path(of: entry.name)
                let place = try Descriptor.openPlace(at: walk.current, entry.name)
                let status = try place.stat()
                guard status.st_dev == store.tree.device else { throw Errno(rawValue: EXDEV) }
                if status.st_mode & S_IFMT == S_IFDIR {
                    try walk.enter(Descriptor.openDirectory(at: walk.current, entry.name), entry.name)
                } else if status.st_nlink > 1 && !linked.insert(status.st_ino).inserted {
                    continue
                }
                try visit(place, status, body)
            }
        } catch let error as RecordError {
            throw StoreError("\(BytePath(path)): \(error.cause)")
        } catch {
            throw StoreError("\(BytePath(path)): \((error as? Errno)?.text ?? "\(error)")")
        }
    }

    private func visit(
        _ place: Descriptor, _ status: stat,
        _ body: (_ place: Descriptor, _ status: stat, _ record: Record) throws(Errno) -> Void
    ) throws {
        if let record = try store.record(of: place) { try body(place, status, record) }
    }
}
