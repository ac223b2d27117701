import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Regular files.
extension TreeBuilder {
    func placeFile(_ entry: RemoteEntry, _ object: RemoteObject) throws(Errno) {
        if try placeLink(entry) { return }
        summary.counts.files += 1
        summary.counts.bytes.add(saturating: object.size)
        guard let existing = try look(entry.name) else {
            if !isRemoved(entry) { try placeStub(entry, object) }
            return
        }
        if existing.kind == S_IFDIR {
            guard try removeDirectoryInTheWay(entry, existing) else { return }
            try placeStub(entry, object, isNew: false)
        } else if let record = existing.record, existing.kind == S_IFREG, isCurrent(record, entry, object) {
            try confirm(record, existing, object)
            summary.counts.unchanged += 1
            register(entry, existing.status, record.object.key)
            try setGiven(of: existing.place, existing.status, entry)
            try noteGiven(entry.name, in: current, path(of: entry.name), nil)
        } else if let refusal = refusal(existing, object) {
            conflict(entry.name, refusal)
        } else {
            try bringUpToDate(existing, entry, object)
        }
    }

    /// Updates a clean file of which the source has another version.
    private func bringUpToDate(
        _ existing: LocalEntry, _ entry: RemoteEntry, _ object: RemoteObject
    ) throws(Errno) {
        switch try comparison(existing, object) {
        case .same(let checksum): try keepContent(of: existing, entry, object, checksum)
        case .differs, .other, nil: try replace(existing, by: entry, object)
        case .failed(let cause): summary.note(.unreadable, path(of: entry.name), cause)
        }
    }

    /// Compares the file with the source's, and reads both for it, if they may be equal: the file is complete here, and
    /// the source still has its size and modification time. A chmod(1) or a new link in the source makes another
    /// version, too.
    ///
    /// - Returns: nil when the content cannot be equal, or is not here.
    private func comparison(_ existing: LocalEntry, _ object: RemoteObject) throws(Errno) -> ContentComparison.Outcome?
    {
        guard existing.kind == S_IFREG, let record = existing.record, record.state == .dual,
            remote.agrees(record.object, object, true)
        else { return nil }
        return remote.compare(object, try existing.place.reopen(O_RDONLY))
    }

    /// Keeps the content, and sets the source's present owner, mode and attributes, and its version in the record.
    private func keepContent(
        of existing: LocalEntry, _ entry: RemoteEntry, _ object: RemoteObject, _ checksum: UInt32
    ) throws(Errno) {
        guard var record = existing.record else { return }
        let path = path(of: entry.name)
        let changes = try localChanges(entry.name, in: current, existing.status, path)
        let lower = try existing.place.reopen(O_RDWR)
        try removeAttributes(of: lower, entry, keeping: changes)
        try apply(entry, to: lower, replacing: existing, keeping: changes)
        record.object = object
        record.contentChecksum = checksum
        record.flags.subtract([.lost, .stale])
        hasTouched = true
        try records.replace(with: record, of: existing.place, showing: lower.stat().st_ctim)
        summary.counts.unchanged += 1
        register(entry, existing.status, object.key)
        try noteGiven(entry.name, in: current, path, changes)
    }

    /// Whether the record names the version that the source has.
    private func isCurrent(_ record: Record, _ entry: RemoteEntry, _ object: RemoteObject) -> Bool {
        guard record.state != .local, remote.agrees(record.object, object, false) else { return false }
        // A file with several names is recorded under one of them.
        return record.object.key == object.key || entry.linkIdentity != nil
    }

    /// The reason why the source's version may not replace the existing name; nil when it may.
    private func refusal(_ existing: LocalEntry, _ object: RemoteObject) -> String? {
        guard existing.isClean, let record = existing.record else { return existing.reason }
        if existing.kind != S_IFREG || record.object.key == object.key { return nil }
        // If it has further names, it is left of a file that had several names in the source too.
        let hadNames = existing.status.st_nlink > 1 || links.severed.contains(existing.status.st_ino)
        if hadNames || remote.agrees(record.object, object, false) { return nil }
        return "\(record.object.key) was renamed to this name in the lower directory"
    }

    /// Clears marks that the source had lost or changed the file: the source has this version.
    private func confirm(_ old: Record, _ existing: LocalEntry, _ object: RemoteObject) throws(Errno) {
        var record = old
        record.flags.subtract([.lost, .stale])
        // The version's form may be new, or belong to the disk that the source is on now.
        record.object.version = object.version
        if object.digest != nil { record.object.digest = object.digest }
        if record == old { return }
        hasTouched = true
        try records.replace(with: record, of: existing.place, showing: old.changeTime(existing.status))
    }

    private func replace(_ existing: LocalEntry, by entry: RemoteEntry, _ object: RemoteObject) throws(Errno) {
        let flags = existing.record?.flags.intersection(.pinned) ?? []
        let old = existing.kind == S_IFREG ? existing : nil
        let changes =
            try old.map { old throws(Errno) in
                try localChanges(entry.name, in: current, old.status, path(of: entry.name))
            } ?? LocalChanges()
        let stub = try makeStub(entry, object, flags: flags, replacing: old, keeping: changes)
        try put(stub, as: entry.name, replacing: true)
        forget(existing)
        try didPlace(entry, try stub.file.stat(), isNew: false, keeping: changes)
    }

    /// Makes a stub under a name that is free.
    func placeStub(_ entry: RemoteEntry, _ object: RemoteObject, isNew: Bool = true) throws(Errno) {
        let stub = try makeStub(entry, object)
        try put(stub, as: entry.name, replacing: false)
        try didPlace(entry, try stub.file.stat(), isNew: isNew)
    }

    func didPlace(
        _ entry: RemoteEntry, _ status: stat, isNew: Bool, keeping changes: LocalChanges = .init()
    ) throws(Errno) {
        touch()
        if let withheld = rights.withheld(from: entry) { summary.note(.skipped, path(of: entry.name), withheld) }
        if isNew { summary.counts.new += 1 } else { summary.counts.changed += 1 }
        register(entry, status, RemoteKey(path(of: entry.name)))
        try noteGiven(entry.name, in: current, path(of: entry.name), changes)
    }

    /// Makes a stub that has no name in the tree yet: size, record, owner, mode, attributes, times.
    private func makeStub(
        _ entry: RemoteEntry, _ object: RemoteObject, flags: Record.Flags = [], replacing old: LocalEntry? = nil,
        keeping changes: LocalChanges = .init()
    ) throws(Errno) -> Stub {
        let stub = try makeNamelessFile()
        do throws(Errno) {
            try stub.file.truncate(to: object.size)
            var record = Record(
                state: object.size == 0 ? .dual : .offline, object: object,
                modified: entry.metadata.modificationTime ?? .now, identity: try FileHandle(of: stub.file),
                granuleSize: granuleSize)
            record.flags = flags
            try records.write(record, to: stub.file)
            try apply(entry, to: stub.file, replacing: old, keeping: changes)
        } catch {
            store.forget(stub.file)
            if let temporary = stub.temporary { try? store.temporary.unlink(temporary) }
            throw error
        }
        return stub
    }

    /// Makes an empty file, of mode 0600.
    private func makeNamelessFile() throws(Errno) -> Stub {
        if !options.avoidsUnnamedFiles {
            do throws(Errno) { return Stub(file: try current.makeUnnamedFile(mode: 0o600), temporary: nil) } catch {
                guard [EOPNOTSUPP, EISDIR, EINVAL, ENOENT].contains(error.rawValue) else { throw error }
            }
        }
        let name = makeTemporaryName()
        return Stub(file: try store.temporary.makeFile(name, mode: 0o600), temporary: name)
    }

    private func put(_ stub: Stub, as name: [UInt8], replacing: Bool) throws(Errno) {
        if let temporary = stub.temporary {
            try moveIntoPlace(temporary, as: name, replacing: replacing)
        } else if replacing {
            let temporary = makeTemporaryName()
            try stub.file.link(into: store.temporary, temporary)
            try moveIntoPlace(temporary, as: name, replacing: true)
        } else {
            try stub.file.link(into: current, name)
        }
    }
}

/// A new file that has no name in the lower tree yet.
private struct Stub {
    let file: Descriptor
    /// Its name under `.passhsm/tmp`, if the file system cannot make files without a name.
    let temporary: [UInt8]?
}
