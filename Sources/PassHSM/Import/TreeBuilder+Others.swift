import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Directories, symlinks, FIFOs, sockets and devices. The import makes them under `.passhsm/tmp`, and moves them into
/// place when they are finished; a directory is finished later.
extension TreeBuilder {
    /// Makes a directory under a free name. Only its owner can enter it until the import leaves it.
    func makeDirectory(_ name: [UInt8]) throws(Errno) -> Descriptor {
        let temporary = makeTemporaryName()
        try store.temporary.makeDirectory(temporary, mode: 0o700)
        do throws(Errno) {
            let directory = try Descriptor.openDirectory(at: store.temporary, temporary)
            try writeRecord(of: directory, .unfinishedDirectory, key: path(of: name))
            try store.temporary.rename(temporary, to: current, name, replacing: false)
            touch()
            return directory
        } catch {
            try? store.temporary.removeDirectory(temporary)
            throw error
        }
    }

    /// Makes or updates a symlink or a special file.
    func placeOther(_ entry: RemoteEntry) throws(Errno) {
        guard rights.admits(entry.kind) else {
            summary.note(
                .skipped, path(of: entry.name), "a device is not taken from a remote; see --trust-remote-rights")
            return
        }
        if try placeLink(entry) { return }
        if case .symlink = entry.kind { summary.counts.links += 1 }
        guard let existing = try look(entry.name) else {
            if isRemoved(entry) { return }
            if let status = try make(entry, replacing: false) { try didPlace(entry, status, isNew: true) }
            return
        }
        if try isSame(existing, entry) {
            summary.counts.unchanged += 1
            register(entry, existing.status, RemoteKey(path(of: entry.name)))
            noteKept(path(of: entry.name))
            return
        }
        var isFree = false
        if existing.kind == S_IFDIR {
            guard try removeDirectoryInTheWay(entry, existing) else { return }
            isFree = true
        } else if !existing.isClean {
            conflict(entry.name, existing.reason)
            return
        }
        if let status = try make(entry, replacing: !isFree) {
            forget(existing)
            try didPlace(entry, status, isNew: false)
        }
    }

    private func isSame(_ existing: LocalEntry, _ entry: RemoteEntry) throws(Errno) -> Bool {
        switch (entry.kind, existing.kind) {
        case (.symlink(let target), S_IFLNK): try current.readLink(entry.name) == target
        case (.fifo, S_IFIFO), (.socket, S_IFSOCK): true
        case (.characterDevice(let device), S_IFCHR), (.blockDevice(let device), S_IFBLK):
            UInt64(existing.status.st_rdev) == device
        default: false
        }
    }

    /// - Returns: nil when it cannot be made without privilege; this is reported.
    func make(_ entry: RemoteEntry, replacing: Bool) throws(Errno) -> stat? {
        let temporary = makeTemporaryName()
        do throws(Errno) { try makeNode(temporary, entry.kind) } catch {
            guard error.rawValue == EPERM else { throw error }
            summary.note(.skipped, path(of: entry.name), "cannot be made without CAP_MKNOD")
            return nil
        }
        do throws(Errno) {
            try finishNode(temporary, entry)
            try moveIntoPlace(temporary, as: entry.name, replacing: replacing)
        } catch {
            try? store.temporary.unlink(temporary)
            throw error
        }
        return try current.stat(entry.name)
    }

    private func makeNode(_ name: [UInt8], _ kind: RemoteEntry.Kind) throws(Errno) {
        let folder = store.temporary
        switch kind {
        case .symlink(let target): try folder.makeSymlink(name, to: target)
        case .fifo: try folder.makeNode(name, mode: S_IFIFO | 0o600, device: 0)
        case .socket: try folder.makeNode(name, mode: S_IFSOCK | 0o600, device: 0)
        case .characterDevice(let device): try folder.makeNode(name, mode: S_IFCHR | 0o600, device: device)
        case .blockDevice(let device): try folder.makeNode(name, mode: S_IFBLK | 0o600, device: device)
        case .file, .directory: throw Errno(rawValue: EINVAL)
        }
    }

    private func finishNode(_ name: [UInt8], _ entry: RemoteEntry) throws(Errno) {
        let folder = store.temporary
        let values = rights.values(for: entry)
        let isOwned = try setOwner(of: folder, name, entry, values)
        if case .symlink = entry.kind {
        } else {
            try folder.withProcPath(of: name) { path throws(Errno) in try setAttributes(of: path, .noFollow, entry) }
            try folder.setMode(ofOwn: name, Self.mode(values, isOwned: isOwned))
        }
        let place = try Descriptor.openPlace(at: folder, name)
        try writeRecord(of: place, RemoteVersion([0x2d]), key: path(of: entry.name))
        let (access, modification) = times(of: entry)
        try folder.setTimes(of: name, access: access, modification: modification)
    }

    // MARK: `.passhsm/tmp`

    func makeTemporaryName() -> [UInt8] {
        lastTemporary += 1
        return Array("import-\(lastTemporary)".utf8)
    }

    func moveIntoPlace(_ temporary: [UInt8], as name: [UInt8], replacing: Bool) throws(Errno) {
        do throws(Errno) {
            try store.temporary.rename(temporary, to: current, name, replacing: replacing)
        } catch {
            try? store.temporary.unlink(temporary)
            throw error
        }
    }
}
