import Glibc
import HSMCore
import HSMStore
import HSMSystem

extension TreeBuilder {
    /// The entry of this name in the current directory; nil when there is none.
    func look(_ name: [UInt8]) throws(Errno) -> LocalEntry? {
        let place: Descriptor
        do throws(Errno) { place = try Descriptor.openPlace(at: current, name) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
        return try LocalEntry(place, store)
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
    func makeWay(for entry: RemoteEntry, _ existing: LocalEntry) throws(Errno) -> Bool {
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
    func removeDirectoryInTheWay(_ entry: RemoteEntry, _ existing: LocalEntry) throws(Errno) -> Bool {
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
    func forget(_ existing: LocalEntry) {
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
