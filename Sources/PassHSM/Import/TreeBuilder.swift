import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Handles the events of a source's listing, and makes the lower tree follow them. Used by one thread.
final class TreeBuilder {
    /// A directory that is being imported.
    struct Level {
        /// The source's entry.
        let entry: RemoteEntry
        /// This import made it: nothing in it can be gone.
        let isNew: Bool
        /// The import sets its owner, mode, times and attributes: they are not set yet, or the source has others now. A
        /// directory that was made locally keeps its own.
        let isOutdated: Bool
        /// The import sets its owner, mode and ACLs as well.
        let setsRights: Bool
        /// The local changes, which stay.
        let changes: LocalChanges
        /// An import made it.
        let isManaged: Bool
        /// Its modification time before anything in it was changed.
        let modified: timespec
        /// New files in it would get an ACL of its making.
        let hasDefaultACL: Bool
        /// The length of ``TreeBuilder/path`` in the parent.
        let parentPathLength: Int
        /// Something in it was made, replaced or removed.
        var isTouched = false
    }

    /// An entry whose place a directory with content takes.
    struct Blocked {
        let entry: RemoteEntry
        let level: Level
    }

    let store: Store
    /// Writes the records of new names.
    let records: RecordWriter
    /// The granule size of new stubs, in bytes.
    let granuleSize: Int
    let options: Importer.Options
    let rights: RemoteRights
    /// Only root can set owners.
    let isRoot = geteuid() == 0
    var summary = ImportSummary()
    var links = LinkRegistry()
    private(set) var stack: DirectoryStack
    private(set) var levels: [Level] = []
    /// The path of the current directory, below the top.
    private(set) var path: [UInt8] = []
    /// Paths of directories that the listing has entered and the lower tree does not follow, each inside the one
    /// before.
    private var skipped: [[UInt8]] = []
    private var entries = 0
    /// An estimate of the bytes that the source's names need in the tables of objects.
    private(set) var objectBytes = 0
    /// The notes of the import before; nil: there was none. ``noted`` has those of this one.
    let before: ImportedNames?
    var noted: [ImportedNames.Entry] = []
    /// Hashes of the paths that the source has; sorted when the listing is over.
    var seen: [UInt64] = []
    /// Directories whose names the source did not list completely.
    private(set) var unlisted: Set<[UInt8]> = []
    /// Entries of the source at whose place the tree has a directory that is not empty yet.
    var blocked: [[UInt8]: Blocked] = [:]
    /// There was no earlier import: no name of one can be gone.
    private(set) var isFirst = false
    /// Something in the tree was changed.
    var hasTouched = false
    /// A source without any name is refused.
    private let refusesEmpty: Bool
    let remote: ListedRemote
    var lastTemporary = 0

    init(
        store: Store, granuleSize: Int, options: Importer.Options, rights: RemoteRights = .directory,
        before: ImportedNames? = nil, refusesEmpty: Bool = false,
        remote: ListedRemote
    ) throws(Errno) {
        self.remote = remote
        self.before = before
        self.refusesEmpty = refusesEmpty
        self.rights = rights
        self.store = store
        records = RecordWriter(store)
        self.granuleSize = granuleSize
        self.options = options
        stack = try DirectoryStack(top: try Descriptor.openDirectory(at: store.tree.root, [0x2e]))
        for name in try DirectoryReader.names(in: store.temporary) {
            // A killed import left these directories; opening the store removed everything else.
            try? store.temporary.removeDirectory(Array(name.dropLast()))
        }
    }

    /// The directory in which the listing's entries are made now.
    var current: Descriptor { stack.current }
    /// The directory of the listing that was entered last.
    var level: Level { levels[levels.count - 1] }

    // This changes the level in place: a copy of it would copy all names in it.
    /// Something in the current directory was made, replaced or removed.
    func touch() {
        levels[levels.count - 1].isTouched = true
        hasTouched = true
    }
    private func see(_ name: [UInt8]) { seen.append(ImportedNames.hash(path(of: name))) }
    /// Whether the source has this path. May be called only after the listing.
    func isSeen(_ path: [UInt8]) -> Bool {
        let hash = ImportedNames.hash(path)
        var (low, high) = (0, seen.count)
        while low < high {
            let middle = (low + high) / 2
            if seen[middle] < hash { low = middle + 1 } else { high = middle }
        }
        return low < seen.count && seen[low] == hash
    }

    func path(of name: [UInt8]) -> [UInt8] { path.isEmpty ? name : path + [0x2f] + name }

    /// - Throws: `ImportError` when the lower directory cannot be written; the listing's errors.
    func build(from source: any RemoteStore, progress: (ImportProgress) -> Void) async throws {
        try await source.list { event in
            try handle(event)
            if entries % 64 == 0 { progress(ImportProgress(counts: summary.counts, entries: entries)) }
        }
        try flagOrRemoveGone()
        try links.orphans.values.forEach(giveKey)
        try links.strays.forEach(removeStray)
        try attempt([]) { () throws(Errno) in try records.flush() }
        progress(ImportProgress(counts: summary.counts, entries: entries))
    }

    private func handle(_ event: RemoteEvent) throws(ImportError) {
        switch event {
        case .enter(let entry):
            if passOver(entry) {
                skipped.append(skipped[skipped.count - 1] + [0x2f] + entry.name)
            } else if levels.isEmpty {
                try takeInLocalFiles()
                try attempt(path) { () throws(Errno) in try enterTop(entry) }
            } else {
                note(entry)
                summary.counts.directories += 1
                let path = path(of: entry.name)
                skipped = [path]
                try attempt(path) { () throws(Errno) in
                    if try enter(entry) { skipped = [] }
                }
                if !skipped.isEmpty { unlisted.insert(path) }
            }
        case .entry(let entry):
            if passOver(entry) { return }
            note(entry)
            try attempt(path(of: entry.name)) { () throws(Errno) in try place(entry) }
        case .leave:
            if skipped.popLast() == nil { try leave() }
        case .unreadable(let key, let error):
            summary.note(.unreadable, key.bytes, error.cause)
            if !skipped.isEmpty || levels.isEmpty { return }
            if key.bytes != path { see(key.bytes.split(separator: 0x2f).last.map(Array.init) ?? []) }
            unlisted.insert(key.bytes)
        }
    }

    private func note(_ entry: RemoteEntry) {
        entries += 1
        var object: RemoteObject?
        if case .file(let found) = entry.kind { object = found }
        // The entry has a checksum, the key, and for a file its version and digest.
        objectBytes.add(
            saturating: 8 + path.count + entry.name.count + (object?.version.bytes.count ?? 0)
                + (object?.digest?.bytes.count ?? 0))
        see(entry.name)
    }

    /// Whether `entry` is in a directory that the lower tree does not follow. The notes keep it, if they had it.
    private func passOver(_ entry: RemoteEntry) -> Bool {
        guard let outer = skipped.last else { return false }
        entries += 1
        if let known = before?[ImportedNames.hash(outer + [0x2f] + entry.name)] { noted.append(known) }
        return true
    }

    /// Errors that the next entry would meet too. All others concern only one entry.
    private static let fatal = [
        EOPNOTSUPP, ENOSPC, EDQUOT, EIO, EROFS, EMFILE, ENFILE, ENOMEM, ESTALE, ENODEV, ESHUTDOWN,
    ]

    /// Runs `body`. A failure is reported for `path`, and ends the import only if other names would meet it too.
    func attempt(_ path: [UInt8], _ body: () throws(Errno) -> Void) throws(ImportError) {
        do throws(Errno) { try body() } catch {
            if Self.fatal.contains(error.rawValue) {
                throw ImportError("the import broke off at \(BytePath(path)): \(error.text)")
            }
            summary.note(.unreadable, path, "cannot be made in the lower directory: \(error.text)")
        }
    }

    private func place(_ entry: RemoteEntry) throws(Errno) {
        if case .file(let object) = entry.kind {
            try placeFile(entry, object)
        } else {
            try placeOther(entry)
        }
    }

    // MARK: Going down and up

    /// Moves local files into the tree: they lie beside it, where no mount shows them. This comes after the source has
    /// answered, so that an import that cannot begin moves nothing.
    private func takeInLocalFiles() throws(ImportError) {
        do throws(StoreError) {
            let outside = store.namesOutside().count
            let left = try store.takeInNamesOutside()
            for (name, cause) in left { summary.note(.conflict, name, cause) }
            // The directory must stay bound to this source then: without one, no mount would show these files.
            if left.count < outside { hasTouched = true }
        } catch { throw ImportError(error.description) }
    }

    private func enterTop(_ entry: RemoteEntry) throws(Errno) {
        let record = try LocalEntry(current, store).record
        isFirst = record == nil
        levels.append(try makeLevel(entry, current, isNew: false, record: record, isManaged: true))
        if record == nil { try writeRecord(of: current, .unfinishedDirectory, key: []) }
    }

    /// - Returns: false when the lower tree cannot follow, and everything inside is passed over.
    private func enter(_ entry: RemoteEntry) throws(Errno) -> Bool {
        let directory: Descriptor
        let next: Level
        let existing = try look(entry.name)
        if existing == nil && isRemoved(entry) { return false }
        if let existing, !(try makeWay(for: entry, existing)) {
            guard existing.kind == S_IFDIR else { return false }
            directory = try Descriptor.openDirectory(at: current, entry.name)
            next = try makeLevel(entry, directory, isNew: false, record: existing.record, isManaged: existing.hasRecord)
        } else {
            directory = try makeDirectory(entry.name)
            next = try makeLevel(entry, directory, isNew: true, record: nil, isManaged: true)
        }
        try stack.push(directory, name: entry.name)
        levels.append(next)
        path = path(of: entry.name)
        return true
    }

    private func makeLevel(
        _ entry: RemoteEntry, _ directory: Descriptor, isNew: Bool, record: Record?, isManaged: Bool
    ) throws(Errno) -> Level {
        let isCurrent = record?.object.version == entry.metadata.directoryVersion
        // A foreign remote gives the rights of new directories only, and none for the top.
        let isUnfinished = !levels.isEmpty && (isNew || record?.object.version == .unfinishedDirectory)
        let status = try directory.stat()
        let changes =
            isUnfinished || !isManaged
            ? LocalChanges()
            : try localChanges([0x2e], in: directory, status, levels.isEmpty ? [] : path(of: entry.name))
        return Level(
            entry: entry, isNew: isNew, isOutdated: isManaged && !isCurrent,
            setsRights: isUnfinished || !rights.isForeign && !changes.rights, changes: changes, isManaged: isManaged,
            modified: status.st_mtim,
            hasDefaultACL: hasDefaultACL(directory), parentPathLength: path.count)
    }

    private func hasDefaultACL(_ directory: Descriptor) -> Bool {
        let size = try? directory.withProcPath { path throws(Errno) in
            try ExtendedAttributes.get("system.posix_acl_default", of: path, .follow, into: .init(start: nil, count: 0))
        }
        return (size ?? 0) > 0
    }

    /// Goes back to a directory after the listing, to place an entry there.
    func goInto(_ directory: Descriptor, _ path: [UInt8], _ level: Level) throws(Errno) {
        stack = try DirectoryStack(top: directory)
        levels = [level]
        self.path = path
    }

    private func leave() throws(ImportError) {
        let level = level
        if levels.count == 1 && entries == 0 && refusesEmpty && unlisted.isEmpty {
            throw ImportError(
                "the source is empty, and the lower directory is not: nothing was changed; see --max-delete")
        }
        try attempt(path) { () throws(Errno) in
            if level.isOutdated {
                hasTouched = true
                try finish(current, level.entry, level)
            } else if level.isTouched {
                try current.setTimes(of: nil, access: nil, modification: level.modified)
            }
            if level.isManaged {
                try setGiven(of: current, try current.stat(), level.entry)
                try noteGiven([0x2e], in: current, path, level.isOutdated ? level.changes : nil)
            } else {
                noteKept(path)
            }
        }
        levels.removeLast()
        do throws(Errno) { try stack.pop() } catch {
            throw ImportError(
                "\(BytePath(path)) was moved in the lower directory during the import: \(error.text)"
            )
        }
        path.removeSubrange(level.parentPathLength...)
    }
}
