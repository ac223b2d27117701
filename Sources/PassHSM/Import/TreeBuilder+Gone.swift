import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Names that the lower tree has and the source no longer has. The import handles them after the listing: so it can
/// count them before it removes any, and a listing that breaks off removes nothing.
extension TreeBuilder {
    /// Marks gone names. Removes them instead if this was requested and they are not too many:
    /// ``ImportSummary/refusal``.
    func flagOrRemoveGone() throws(ImportError) {
        if isFirst { return }
        seen.sort()
        if options.deleteGone {
            let count = try countGone()
            let total = summary.counts.unchanged + summary.counts.changed + count
            guard count <= options.deleteLimit.count(of: total) else {
                summary.refusal =
                    "the source no longer has \(count) of the \(total) names that were imported: none was removed; "
                    + "see --max-delete"
                for path in blocked.keys { summary.note(.conflict, path, Self.fullDirectory) }
                return
            }
        }
        try walk { (walk: inout TreeWalk, step: TreeWalk.Step) throws(Errno) in
            let directory = walk.current
            switch step {
            case .name(let name, let path):
                let existing = try LocalEntry(try Descriptor.openPlace(at: directory, name), store)
                if try noteGone(existing, name, in: directory, path) { walk.didRemove() }
            case .left(let name, let path, let wasTouched, let modified):
                if !isSeen(path) || blocked[path] != nil {
                    let child = try LocalEntry(try Descriptor.openPlace(at: directory, name), store)
                    if removeGoneDirectory(child, name, in: directory, path) { return walk.didRemove() }
                }
                if wasTouched { try directory.setTimes(of: name, access: nil, modification: modified) }
            case .failed(_, let error): throw error
            }
        }
        for (path, blocked) in blocked {
            try attempt(path) { () throws(Errno) in try placeBlocked(blocked, path) }
        }
    }

    /// The count of names that ``flagOrRemoveGone()`` would remove.
    private func countGone() throws(ImportError) -> Int {
        var count = 0
        try walk { (walk: inout TreeWalk, step: TreeWalk.Step) throws(Errno) in
            switch step {
            case .name(let name, let path):
                let existing = try LocalEntry(try Descriptor.openPlace(at: walk.current, name), store)
                guard existing.isClean, let record = existing.record else { return }
                let key = record.object.key.bytes
                // Further names of a file go together with the recorded one.
                if key == path || existing.status.st_nlink > 1 && !isSeen(key) { count += 1 }
            case .left: return
            case .failed(_, let error): throw error
            }
        }
        return count
    }

    /// Calls `body` for each directory of the tree, and for each other name that the source does not have.
    private func walk(_ body: (inout TreeWalk, TreeWalk.Step) throws(Errno) -> Void) throws(ImportError) {
        let top = try reading { () throws(Errno) in try Descriptor.openDirectory(at: store.tree.root, [0x2e]) }
        var walk = try reading { () throws(Errno) in
            try TreeWalk(top: top) { [self] path, parent, isDirectory in
                if path == Array(Store.folder.utf8) { return true }
                if isSeen(path) { return !isDirectory }
                // If a directory could not be listed completely, its names may still exist.
                return unlisted.contains(parent)
            }
        }
        while let step = try reading({ () throws(Errno) in try walk.next() }) {
            let path: [UInt8] =
                switch step {
                case .name(_, let path), .left(_, let path, _, _), .failed(let path, _): path
                }
            try attempt(path) { () throws(Errno) in try body(&walk, step) }
        }
        guard walk.isTopTouched else { return }
        try reading { () throws(Errno) in try top.setTimes(of: nil, access: nil, modification: walk.topModified) }
    }

    private func reading<Result>(_ body: () throws(Errno) -> Result) throws(ImportError) -> Result {
        do throws(Errno) { return try body() } catch {
            throw ImportError("walking through the lower directory failed: \(error.text)")
        }
    }

    /// Marks one gone name, or removes it if this was requested and nothing local is lost.
    ///
    /// A file may be recorded under another name than this one. Then it was renamed locally, and is the user's; or it
    /// has several names, which go with the recorded one: see ``removeStray(_:)``.
    ///
    /// - Returns: whether the name was removed.
    private func noteGone(
        _ existing: LocalEntry, _ name: [UInt8], in directory: Descriptor, _ path: [UInt8]
    ) throws(Errno) -> Bool {
        guard var record = existing.record, record.state != .local else { return false }
        guard record.object.key.bytes == path else {
            let inode = existing.status.st_ino
            if options.deleteGone && (existing.status.st_nlink > 1 || links.severed.contains(inode)) {
                links.strays.append(.init(path: path, inode: inode))
            }
            return false
        }
        summary.counts.gone += 1
        hasTouched = true
        if options.deleteGone && existing.isClean {
            try directory.unlink(name)
            forget(existing)
            return true
        }
        if existing.kind == S_IFREG && !record.flags.contains(.lost) {
            record.flags.insert(.lost)
            try store.write(record, to: existing.place)
        }
        return false
    }

    private func removeGoneDirectory(
        _ existing: LocalEntry, _ name: [UInt8], in directory: Descriptor, _ path: [UInt8]
    ) -> Bool {
        guard options.deleteGone, existing.isClean, existing.record?.object.key.bytes == path else { return false }
        // A directory that is not empty stays: it holds something local, or names that are decided on at the end.
        guard (try? directory.removeDirectory(name)) != nil else {
            links.fullDirectories.insert(path)
            return false
        }
        store.forget(existing.place)
        return true
    }

    /// Called at the end of the import: removes a name of a file whose recorded name was removed, and the directories
    /// that only such names kept.
    func removeStray(_ stray: LinkRegistry.LinkedFile) throws(ImportError) {
        guard links.severed.contains(stray.inode) else { return }
        try attempt(stray.path) { () throws(Errno) in
            var (parent, name) = try open(stray.path)
            let existing = try LocalEntry(try Descriptor.openPlace(at: parent, name), store)
            guard existing.isClean, existing.status.st_ino == stray.inode else { return }
            try keepingTimes(of: parent) { () throws(Errno) in try parent.unlink(name) }
            forget(existing)
            summary.counts.gone += 1
            var path = stray.path
            while let slash = path.lastIndex(of: 0x2f), links.fullDirectories.contains(Array(path[..<slash])) {
                path.removeSubrange(slash...)
                (parent, name) = try open(path)
                let directory = try LocalEntry(try Descriptor.openPlace(at: parent, name), store)
                let isRemoved = try keepingTimes(of: parent) { () throws(Errno) in
                    removeGoneDirectory(directory, name, in: parent, path)
                }
                if !isRemoved { return }
            }
        }
    }

    private func keepingTimes<Result>(
        of place: Descriptor, _ body: () throws(Errno) -> Result
    ) throws(Errno) -> Result {
        let directory = try Descriptor.openDirectory(at: place, [0x2e])
        let modified = try directory.stat().st_mtim
        let result = try body()
        try directory.setTimes(of: nil, access: nil, modification: modified)
        return result
    }
}
