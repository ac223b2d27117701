import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Rights of existing names.
extension TreeBuilder {
    /// Sets the owner and mode that this import's options give. Those of earlier imports are for new names only.
    func setGiven(of place: Descriptor, _ status: stat, _ entry: RemoteEntry) throws(Errno) {
        guard rights.isForeign else { return }
        let isDirectory = status.st_mode & S_IFMT == S_IFDIR
        let values = options.rights.values(isDirectory: isDirectory)
        if values.isEmpty { return }
        hasTouched = true
        let hasOwner =
            (values.owner ?? status.st_uid) == status.st_uid && (values.group ?? status.st_gid) == status.st_gid
        let isOwned = hasOwner ? true : try setOwner(of: place, [], entry, values)
        // The change of the owner has cleared set-user-ID, as it should.
        guard let mode = values.mode, isOwned, mode != status.st_mode & 0o7777 else { return }
        try place.withProcPath { path throws(Errno) in _ = try check { chmod(path, mode) } }
    }

    /// Clears set-user-ID and set-group-ID of everything that imports have made: before they were withheld, they came
    /// from the remote.
    ///
    /// - Returns: false when a name keeps them; this is reported.
    func withdrawRights() throws -> Bool {
        var walk = try NameWalk(top: store.tree.root, hiding: Store.folder)
        var isDone = true
        while let step = try walk.next() {
            guard case .name(let entry) = step else {
                if case .unlisted(let error) = step { throw error }
                continue
            }
            let (name, path) = (entry.name, walk.path(of: entry.name))
            try attempt(path) { () throws(Errno) in
                let place = try Descriptor.openPlace(at: walk.current, name)
                let status = try place.stat()
                if status.st_mode & 0o6000 != 0 && !withdraw(from: place, status, path) { isDone = false }
                guard status.st_mode & S_IFMT == S_IFDIR else { return }
                try walk.enter(Descriptor.openDirectory(at: walk.current, name), name)
            }
        }
        return isDone
    }

    private func withdraw(from place: Descriptor, _ status: stat, _ path: [UInt8]) -> Bool {
        do {
            // A record that cannot be believed counts, too.
            let isImported = try LocalEntry(place, store).isImported
            guard isImported, status.st_mode & S_IFMT != S_IFLNK else { return true }
            hasTouched = true
            try place.withProcPath { path throws(Errno) in _ = try check { chmod(path, status.st_mode & 0o1777) } }
            summary.note(
                .skipped, path,
                "set-user-ID or set-group-ID, which an earlier import took from the remote, is taken away; see "
                    + "--trust-remote-rights")
            return true
        } catch {
            summary.note(.unreadable, path, "it keeps set-user-ID or set-group-ID of the remote: \(error)")
            return false
        }
    }
}
