import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Rights of names that are there already.
extension TreeBuilder {
    /// Sets what this import's user says of owner and mode; what earlier imports were told is for new names only.
    func setGiven(of place: Descriptor, _ status: stat, _ entry: RemoteEntry) throws(Errno) {
        guard rights.isForeign else { return }
        let isDirectory = status.st_mode & S_IFMT == S_IFDIR
        let values = options.rights.values(isDirectory: isDirectory)
        if values.isEmpty { return }
        hasTouched = true
        let hasOwner =
            (values.owner ?? status.st_uid) == status.st_uid && (values.group ?? status.st_gid) == status.st_gid
        let isOwned = hasOwner ? true : try setOwner(of: place, [], entry, values)
        // A change of the owner takes set-user-ID away, as it should be.
        guard let mode = values.mode, isOwned, mode != status.st_mode & 0o7777 else { return }
        try place.withProcPath { path throws(Errno) in _ = try check { chmod(path, mode) } }
    }

    /// Takes set-user-ID and set-group-ID from everything that imports have made: before they were withheld, they came
    /// from the remote.
    ///
    /// - Returns: false when something keeps them, which is reported.
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
            // One that cannot be believed is a record too.
            let isImported = try Existing(place, store).isImported
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
