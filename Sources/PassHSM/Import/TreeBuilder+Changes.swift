import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// The parts of a name that were changed in the lower tree since an import set them.
struct LocalChanges: Equatable {
    /// Owner, mode, ACLs.
    var rights = false
    /// All other attributes that imports set.
    var attributes = false
}

/// The notes that imports make of the names in the tree: see ``ImportedNames``.
extension TreeBuilder {
    /// Whether the tree had `entry` and no longer has it: it was removed or renamed locally, and stays so.
    func isRemoved(_ entry: RemoteEntry) -> Bool {
        guard !options.restores, let known = before?[ImportedNames.hash(path(of: entry.name))] else { return false }
        noted.append(known)
        summary.counts.removed += 1
        return true
    }

    /// Notes that the tree has `path`. Its rights and attributes have not changed, or were never the import's.
    func noteKept(_ path: [UInt8]) {
        let hash = ImportedNames.hash(path)
        noted.append(before?[hash] ?? .init(path: hash))
    }

    /// Notes that the tree has `path`, which is `name` in `directory`, with its present rights and attributes. Local
    /// changes that stay go on counting as changed.
    ///
    /// - Parameter changes: the local changes that stay; nil: the import has set nothing.
    func noteGiven(
        _ name: [UInt8], in directory: Descriptor, _ path: [UInt8], _ changes: LocalChanges?
    ) throws(Errno) {
        let known = before?[ImportedNames.hash(path)]
        if let known, changes == nil {
            noted.append(known)
            return
        }
        var entry = try state(name, in: directory, try directory.stat(name), path)
        if let known, let changes {
            if changes.rights { entry.rights = known.rights }
            if changes.attributes { entry.attributes = known.attributes }
        }
        noted.append(entry)
    }

    /// Moves the notes of this import out, which may be many, and appends those of `before`.
    func takeNoted(before: ImportedNames?) -> [ImportedNames.Entry] {
        var result: [ImportedNames.Entry] = []
        swap(&result, &noted)
        if let before { result += before.entries }
        return result
    }

    /// The changes since the last import. A name that no import has noted counts as unchanged.
    func localChanges(
        _ name: [UInt8], in directory: Descriptor, _ status: stat, _ path: [UInt8]
    ) throws(Errno) -> LocalChanges {
        guard let known = before?[ImportedNames.hash(path)] else { return LocalChanges() }
        let now = try state(name, in: directory, status, path)
        return LocalChanges(rights: now.rights != known.rights, attributes: now.attributes != known.attributes)
    }

    private func state(
        _ name: [UInt8], in directory: Descriptor, _ status: stat, _ path: [UInt8]
    ) throws(Errno) -> ImportedNames.Entry {
        var (rights, others): ([UInt8], [UInt8]) = ([], [])
        for number in [status.st_mode & 0o7777, status.st_uid, status.st_gid] {
            withUnsafeBytes(of: number.littleEndian) { rights += $0 }
        }
        for attribute in try ownAttributes(name, in: directory, withACLs: true) {
            let text = attribute.name + [0] + attribute.value + [0]
            if Self.isACL(attribute.name) { rights += text } else { others += text }
        }
        return .init(
            path: ImportedNames.hash(path), rights: ImportedNames.shortHash(rights),
            attributes: ImportedNames.shortHash(others))
    }

    /// The attributes of a name in the tree that an import would set, by name.
    func ownAttributes(
        _ name: [UInt8], in directory: Descriptor, withACLs: Bool = false
    ) throws(Errno) -> [RemoteEntry.Attribute] {
        var metadata = RemoteEntry.Metadata()
        try metadata.readAttributes(of: name, in: directory)
        return metadata.attributes.filter { withACLs || !Self.isACL($0.name) }
            .sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    static let aclNames = ["system.posix_acl_access", "system.posix_acl_default"]

    static func isACL(_ name: [UInt8]) -> Bool { aclNames.contains { name.elementsEqual($0.utf8) } }
}
