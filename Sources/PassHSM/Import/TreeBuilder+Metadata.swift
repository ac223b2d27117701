import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Owner, mode, attributes and times.
extension TreeBuilder {
    /// Gives everything except a name to a file that no program can see yet.
    ///
    /// - Parameters:
    ///   - old: the file that it replaces, if there is one.
    ///   - changes: the local changes of that file, which are kept.
    func apply(
        _ entry: RemoteEntry, to file: Descriptor, replacing old: LocalEntry?, keeping changes: LocalChanges
    ) throws(Errno) {
        let keepsRights = rights.isForeign || changes.rights
        let values =
            old.flatMap { keepsRights ? rights.values(replacing: $0.status, entry) : nil } ?? rights.values(for: entry)
        let isOwned = try setOwner(of: file, [], entry, values)
        let acl = try keepsRights ? old?.accessList() : nil
        let attributes = try changes.attributes ? ownAttributes(entry.name, in: current) : nil
        try file.withProcPath { path throws(Errno) in
            try setAttributes(of: path, .follow, entry, instead: attributes, acls: old == nil || !keepsRights)
            if level.hasDefaultACL { try dropInheritedACL(of: path, entry) }
            if let acl {
                try acl.withBytes { value throws(Errno) in
                    try ExtendedAttributes.set(LocalEntry.accessListName, of: path, .follow, to: value)
                }
            }
        }
        try file.setMode(Self.mode(values, isOwned: isOwned))
        let (access, modification) = times(of: entry)
        try file.setTimes(of: nil, access: access, modification: modification)
    }

    /// Removes the attributes that the source's file no longer has, except those that were changed locally.
    func removeAttributes(of file: Descriptor, _ entry: RemoteEntry, keeping changes: LocalChanges) throws(Errno) {
        let told = Set(rights.attributes(of: entry).map(\.name))
        for attribute in try ownAttributes(entry.name, in: current, withACLs: true) where !told.contains(attribute.name)
        {
            if Self.isACL(attribute.name) ? rights.isForeign || changes.rights : changes.attributes { continue }
            let name = String(decoding: attribute.name, as: UTF8.self)
            try file.withProcPath { path throws(Errno) in try removeAttribute(name, of: path) }
        }
    }

    /// Gives a directory the source's owner, mode, attributes and times, after everything in it was made. Then it notes
    /// in the directory's record that this is done.
    ///
    /// - Parameter level: says which parts are local, and stay.
    func finish(_ directory: Descriptor, _ entry: RemoteEntry, _ level: Level) throws(Errno) {
        let setsRights = level.setsRights
        let values = rights.values(for: entry)
        let isOwned = try setsRights ? setOwner(of: directory, [], entry, values) : true
        let attributes = rights.attributes(of: entry)
        try directory.withProcPath { path throws(Errno) in
            for name in Self.aclNames where setsRights {
                let isKept = attributes.contains { $0.name.elementsEqual(name.utf8) }
                if !isKept { try removeAttribute(name, of: path) }
            }
            try setAttributes(of: path, .follow, entry, instead: level.changes.attributes ? [] : nil, acls: setsRights)
        }
        if setsRights { try directory.setMode(Self.mode(values, isOwned: isOwned)) }
        try writeRecord(of: directory, entry.metadata.directoryVersion, key: path)
        let (access, modification) = times(of: entry)
        try directory.setTimes(of: nil, access: access, modification: modification)
    }

    /// - Parameter name: in `place`; empty for `place` itself.
    /// - Returns: false when the file keeps another owner.
    func setOwner(
        of place: Descriptor, _ name: [UInt8], _ entry: RemoteEntry, _ values: RemoteRights.Values
    ) throws(Errno) -> Bool {
        if values.owner == nil && values.group == nil { return true }
        let (owner, group) = (values.owner ?? .max, values.group ?? .max)
        do throws(Errno) {
            try place.setOwner(name, owner: owner, group: group)
            return true
        } catch {
            // EINVAL: the user namespace does not know the owner.
            guard error.rawValue == EPERM || error.rawValue == EINVAL else { throw error }
            let shown = [values.owner, values.group].map { $0.map(String.init) ?? "" }.joined(separator: ":")
            if isRoot { summary.note(.skipped, noteworthy(entry), "owner \(shown): \(error.text)") }
            return false
        }
    }

    /// - Parameters:
    ///   - own: set instead of the source's attributes, except ACLs.
    ///   - acls: sets the source's ACLs.
    func setAttributes(
        of path: UnsafePointer<CChar>, _ links: ExtendedAttributes.Links, _ entry: RemoteEntry,
        instead own: [RemoteEntry.Attribute]? = nil, acls: Bool = true
    ) throws(Errno) {
        let all = rights.attributes(of: entry)
        let others = own ?? all.filter { !Self.isACL($0.name) }
        for attribute in (acls ? all.filter { Self.isACL($0.name) } : []) + others {
            do throws(Errno) {
                try withName(attribute.name) { name throws(Errno) in
                    try attribute.value.withBytes { value throws(Errno) in
                        try ExtendedAttributes.set(name, of: path, links, to: value)
                    }
                }
            } catch {
                // Only root can give capabilities. ext4 also answers ENOSPC when attributes do not fit; if the disk is
                // full, a later call fails too.
                let isOwn = [EOPNOTSUPP, EPERM, EINVAL, ENOSPC, E2BIG, ERANGE].contains(error.rawValue)
                guard isOwn else { throw error }
                let name = String(decoding: attribute.name, as: UTF8.self)
                summary.note(.skipped, noteworthy(entry), "attribute \(name): \(error.text)")
            }
        }
    }

    func dropInheritedACL(of path: UnsafePointer<CChar>, _ entry: RemoteEntry) throws(Errno) {
        let name = "system.posix_acl_access"
        if rights.attributes(of: entry).contains(where: { $0.name.elementsEqual(name.utf8) }) { return }
        try removeAttribute(name, of: path)
    }

    private func removeAttribute(_ name: String, of path: UnsafePointer<CChar>) throws(Errno) {
        do throws(Errno) { try ExtendedAttributes.remove(name, of: path, .follow) } catch {
            guard error.rawValue == ENODATA || error.rawValue == EOPNOTSUPP else { throw error }
        }
    }

    /// Without the owner, setuid and setgid would lend another user's rights.
    static func mode(_ values: RemoteRights.Values, isOwned: Bool) -> mode_t {
        (values.mode ?? 0o600) & (isOwned ? 0o7777 : 0o1777)
    }

    func times(of entry: RemoteEntry) -> (access: timespec?, modification: timespec?) {
        (entry.metadata.accessTime.map(timespec.init), entry.metadata.modificationTime.map(timespec.init))
    }

    func noteworthy(_ entry: RemoteEntry) -> [UInt8] {
        entry.name == level.entry.name && entry.kind == .directory ? path : path(of: entry.name)
    }

    // MARK: Records of names that are no regular files

    /// Records that an import made `place`, which is no regular file: imports replace and remove only such names.
    ///
    /// Without privilege symlinks and special files cannot have an attribute: they count as local.
    func writeRecord(of place: Descriptor, _ version: RemoteVersion, key: [UInt8]) throws(Errno) {
        let object = RemoteObject(key: RemoteKey(key), version: version, size: 0)
        let record = Record(state: .dual, object: object, modified: .now, identity: try FileHandle(of: place))
        do throws(Errno) { try records.write(record, to: place) } catch {
            guard error.rawValue == EPERM || error.rawValue == EOPNOTSUPP else { throw error }
        }
    }
}

extension RemoteVersion {
    /// The version of a directory whose owner, mode, times and attributes are not set yet.
    static let unfinishedDirectory = RemoteVersion([])
}

extension RemoteEntry.Metadata {
    /// Differs from an earlier one when an import has something to set on a directory.
    var directoryVersion: RemoteVersion {
        let parts: [Int] = [
            Int(permissions ?? 0), Int(owner ?? 0), Int(group ?? 0), modificationTime?.seconds ?? 0,
            modificationTime?.nanoseconds ?? 0, Int(truncatingIfNeeded: attributesDigest),
        ]
        return RemoteVersion(Array("d\(parts.map(String.init).joined(separator: "."))".utf8))
    }

    /// FNV-1a over names and values, independent of their order.
    private var attributesDigest: UInt64 {
        attributes.reduce(0) { sum, attribute in
            let bytes = attribute.name + [0] + attribute.value
            return sum ^ bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        }
    }
}

extension timespec {
    fileprivate init(_ time: RemoteEntry.Time) { self.init(tv_sec: time.seconds, tv_nsec: time.nanoseconds) }
}
