import Glibc
import HSMCore
import HSMStore
import HSMSystem

extension TreeBuilder {
    /// Remembers the place of a file with several names, when its first name is there.
    func register(_ entry: RemoteEntry, _ status: stat, _ recordedKey: RemoteKey) {
        guard let identity = entry.linkIdentity else { return }
        let path = path(of: entry.name)
        links.files[identity] = .init(path: path, inode: status.st_ino)
        links.orphans[identity] =
            recordedKey.bytes == path ? nil : .init(path: path, recordedKey: recordedKey)
    }

    /// Makes the name of `entry` a further name of a file that is there already.
    ///
    /// - Returns: false when this is the file's first name.
    func placeLink(_ entry: RemoteEntry) throws(Errno) -> Bool {
        guard let identity = entry.linkIdentity, let file = links.files[identity] else { return false }
        let isRecorded = links.orphans[identity]?.recordedKey.bytes == path(of: entry.name)
        let existing = try look(entry.name)
        if existing == nil, isRemoved(entry) { return true }
        if let existing, existing.status.st_ino == file.inode {
            summary.counts.links += 1
            summary.counts.unchanged += 1
            if isRecorded { links.orphans[identity] = nil }
            noteKept(path(of: entry.name))
            return true
        }
        if let existing, !existing.isClean || existing.kind == S_IFDIR {
            summary.counts.links += 1
            conflict(entry.name, existing.reason)
            return true
        }
        // If the link fails for any reason, a separate file serves readers as well.
        guard (try? link(file, entry.name, replacing: existing != nil)) != nil else {
            links.files[identity] = nil
            return false
        }
        touch()
        noteKept(path(of: entry.name))
        summary.counts.links += 1
        if let existing {
            forget(existing)
            summary.counts.changed += 1
        } else {
            summary.counts.new += 1
        }
        return true
    }

    private func link(_ file: LinkRegistry.LinkedFile, _ name: [UInt8], replacing: Bool) throws(Errno) {
        let (parent, last) = try open(file.path)
        guard try parent.stat(last).st_ino == file.inode else { throw Errno(rawValue: ESTALE) }
        if replacing {
            let temporary = makeTemporaryName()
            try parent.link(last, into: store.temporary, temporary)
            try moveIntoPlace(temporary, as: name, replacing: true)
        } else {
            try parent.link(last, into: current, name)
        }
    }

    /// The directory that contains the last name of a path in the lower tree, and that name. Symlinks are not followed.
    func open(_ path: [UInt8]) throws(Errno) -> (parent: Descriptor, name: [UInt8]) {
        let names = path.split(separator: 0x2f).map(Array.init)
        var directory = store.tree.root
        for name in names.dropLast() { directory = try Descriptor.openPlaceOfDirectory(at: directory, name) }
        return (directory, names.last ?? [])
    }

    /// Records a file under a name that the source still has, because the source lost the recorded name.
    func giveKey(_ orphan: LinkRegistry.Orphan) throws(ImportError) {
        try attempt(orphan.path) { () throws(Errno) in
            let (parent, name) = try open(orphan.path)
            let existing = try LocalEntry(try Descriptor.openPlace(at: parent, name), store)
            guard var record = existing.record, record.object.key == orphan.recordedKey else { return }
            record.object.key = RemoteKey(orphan.path)
            record.flags.remove(.lost)
            hasTouched = true
            try store.write(record, to: existing.place)
        }
    }
}
