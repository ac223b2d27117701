import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// A name in the lower tree that the source has too.
struct Existing {
    let status: stat
    /// O_PATH.
    let place: Descriptor
    let record: Record?
    /// The record's fault, if there is a record that cannot be believed.
    let damage: RecordError?

    var kind: mode_t { status.st_mode & S_IFMT }
    var hasRecord: Bool { record != nil }
    /// The name came from a remote; true also when its record cannot be believed any more.
    var isImported: Bool { damage != nil || record.map { $0.state != .local } ?? false }
    /// An import made the name, and it holds nothing that the remote does not have.
    var isClean: Bool {
        guard let record else { return false }
        return record.state != .local && !record.flags.contains(.dirty) && !wasChangedUnseen
    }
    /// The file was changed behind a mount, or in a way that the mount's front end does not see.
    private var wasChangedUnseen: Bool { kind == S_IFREG && record?.wasChangedUnseen(status) == true }

    init(_ place: Descriptor, _ store: Store) throws(Errno) {
        self.place = place
        status = try place.stat()
        do throws(RecordError) {
            record = try store.record(of: place)
            damage = nil
        } catch {
            record = nil
            damage = error
        }
    }

    static let accessListName = "system.posix_acl_access"

    /// The ACL of a file; nil when it has none beyond its mode.
    func accessList() throws(Errno) -> [UInt8]? {
        do throws(Errno) {
            return try place.withProcPath { path throws(Errno) in
                try ExtendedAttributes.value(Self.accessListName, of: path, .follow)
            }
        } catch {
            guard error.rawValue == ENODATA || error.rawValue == EOPNOTSUPP else { throw error }
            return nil
        }
    }

    /// The reason to leave the name as it is, for the report of a conflict.
    var reason: String {
        if let damage { return damage.cause }
        guard let record, record.state != .local else { return "something local has this name" }
        if wasChangedUnseen { return "it may have been changed: its size or modification time is not the recorded one" }
        return record.flags.contains(.dirty) ? "it has local changes, and another version in the source" : "in the way"
    }
}

extension TreeBuilder {
    /// The entry of this name in the current directory; nil when there is none.
    func look(_ name: [UInt8]) throws(Errno) -> Existing? {
        let place: Descriptor
        do throws(Errno) { place = try Descriptor.openPlace(at: current, name) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
        return try Existing(place, store)
    }

    func conflict(_ name: [UInt8], _ cause: String) {
        summary.note(.conflict, path(of: name), cause)
        noteKept(path(of: name))
    }

    /// Removes the name of `entry`, a directory in the source, if the lower tree has something else there that is
    /// clean.
    ///
    /// - Returns: whether the name is free now. A name that may not be removed is reported, unless it is a directory
    ///   itself.
    func makeWay(for entry: RemoteEntry, _ existing: Existing) throws(Errno) -> Bool {
        if existing.kind == S_IFDIR { return false }
        guard existing.isClean else {
            conflict(entry.name, "\(existing.reason); the source has a directory")
            return false
        }
        try current.unlink(entry.name)
        touch()
        forget(existing)
        summary.counts.changed += 1
        return true
    }

    /// Removes an empty directory that an import made, where the source now has something else. A directory with
    /// content is left until the end of the import, when gone names in it are deleted: ``placeBlocked(_:_:)``.
    ///
    /// - Returns: whether the name is free now; otherwise this is reported.
    func removeDirectoryInTheWay(_ entry: RemoteEntry, _ existing: Existing) throws(Errno) -> Bool {
        let name = entry.name
        guard existing.isClean else {
            conflict(name, "a local directory has this name; the source has something else")
            return false
        }
        do throws(Errno) { try current.removeDirectory(name) } catch {
            guard error.rawValue != ENOENT else { return true }
            guard error.rawValue == ENOTEMPTY || error.rawValue == EEXIST else { throw error }
            if options.deleteGone {
                blocked[path(of: name)] = Blocked(entry: entry, level: level)
            } else {
                conflict(name, Self.fullDirectory)
            }
            return false
        }
        touch()
        store.forget(existing.place)
        return true
    }

    static let fullDirectory =
        "a directory that is not empty has this name; the source has something else"

    /// Makes the source's entry at `path`, if the directory there is gone by now.
    func placeBlocked(_ blocked: Blocked, _ path: [UInt8]) throws(Errno) {
        let (place, name) = try open(path)
        let parent = try Descriptor.openDirectory(at: place, [0x2e])
        let modified = try parent.stat().st_mtim
        try goInto(parent, Array(path.dropLast(name.count + 1)), blocked.level)
        if let existing = try look(name) {
            if existing.kind == S_IFDIR { conflict(name, Self.fullDirectory) }
            return
        }
        if case .file(let object) = blocked.entry.kind {
            try placeStub(blocked.entry, object, isNew: false)
        } else if let status = try make(blocked.entry, replacing: false) {
            try didPlace(blocked.entry, status, isNew: false)
        }
        try parent.setTimes(of: nil, access: nil, modification: modified)
    }

    /// Removes the store's data about a file whose name was just removed, unless the file has further names.
    func forget(_ existing: Existing) {
        if existing.status.st_nlink <= 1 || existing.kind == S_IFDIR {
            store.forget(existing.place)
        } else {
            links.severed.insert(existing.status.st_ino)
        }
    }
}

extension Store {
    func forget(_ place: Descriptor) {
        if let handle = try? FileHandle(of: place) { forget(handle) }
    }
}
