import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// What the lower tree has and the source no longer has.
extension TreeBuilder {
    /// Goes through the current directory for names that the source does not have.
    func removeGone() throws(ImportError) {
        var cursor = DirectoryCursor()
        while let name = try nextName(&cursor, in: current, path) {
            if level.seen.contains(name) || (levels.count == 1 && name == Array(Store.folder.utf8)) { continue }
            try attempt(path(of: name)) { () throws(Errno) in
                guard let existing = try look(name) else { return }
                if existing.kind == S_IFDIR {
                    try removeGoneTree(name)
                } else if try noteGone(existing, name, in: current, path(of: name)) {
                    touch()
                }
            }
        }
    }

    private func nextName(
        _ cursor: inout DirectoryCursor, in directory: Descriptor, _ path: [UInt8]
    ) throws(ImportError) -> [UInt8]? {
        do throws(Errno) { return try cursor.next(in: directory)?.name } catch {
            throw ImportError("\(BytePath(path)) in the lower directory: \(error.text)")
        }
    }

    /// One name that is gone: marked, or removed when that is asked for and nothing local is lost.
    ///
    /// A file that is recorded under another name than its own was renamed locally, and is the user's; or it has several
    /// names, which go when the recorded one goes: see ``removeStray(_:)``.
    ///
    /// - Returns: whether the name was removed.
    private func noteGone(
        _ existing: Existing, _ name: [UInt8], in directory: Descriptor, _ path: [UInt8]
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

    /// The directory `name` of the current one, with everything in it, is gone.
    func removeGoneTree(_ name: [UInt8]) throws(Errno) {
        let start = path(of: name)
        let top = try Descriptor.openDirectory(at: current, name)
        var walk = try GoneWalk(top: top, path: start)
        while let step = try walk.next() {
            let directory = walk.current
            switch step {
            case .name(let name, let path):
                let existing = try Existing(try Descriptor.openPlace(at: directory, name), store)
                if try noteGone(existing, name, in: directory, path) { walk.didRemove() }
            case .left(let name, let path, let wasTouched, let modified):
                let child = try Existing(try Descriptor.openPlace(at: directory, name), store)
                if removeGoneDirectory(child, name, in: directory, path) {
                    walk.didRemove()
                } else if wasTouched {
                    try directory.setTimes(of: name, access: nil, modification: modified)
                }
            }
        }
        let existing = try Existing(try Descriptor.openPlace(at: current, name), store)
        if removeGoneDirectory(existing, name, in: current, start) {
            touch()
        } else if walk.isTopTouched {
            try current.setTimes(of: name, access: nil, modification: walk.topModified)
        }
    }

    private func removeGoneDirectory(
        _ existing: Existing, _ name: [UInt8], in directory: Descriptor, _ path: [UInt8]
    ) -> Bool {
        guard options.deleteGone, existing.isClean, existing.record?.object.key.bytes == path else { return false }
        // What is not empty stays: it holds something local, or names that are decided on at the end.
        guard (try? directory.removeDirectory(name)) != nil else {
            links.fullDirectories.insert(path)
            return false
        }
        store.forget(existing.place)
        return true
    }

    /// At the end of the import: removes a name of a file whose recorded name was removed, and the directories that only
    /// such names kept.
    func removeStray(_ stray: LinkRegistry.Place) throws(ImportError) {
        guard links.severed.contains(stray.inode) else { return }
        try attempt(stray.path) { () throws(Errno) in
            var (parent, name) = try open(stray.path)
            let existing = try Existing(try Descriptor.openPlace(at: parent, name), store)
            guard existing.isClean, existing.status.st_ino == stray.inode else { return }
            try keepingTimes(of: parent) { () throws(Errno) in try parent.unlink(name) }
            forget(existing)
            summary.counts.gone += 1
            var path = stray.path
            while let slash = path.lastIndex(of: 0x2f), links.fullDirectories.contains(Array(path[..<slash])) {
                path.removeSubrange(slash...)
                (parent, name) = try open(path)
                let directory = try Existing(try Descriptor.openPlace(at: parent, name), store)
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
