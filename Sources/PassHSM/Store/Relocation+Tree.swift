import Glibc
import HSMSystem

extension Relocation {
    /// Makes the tree with the owner, mode, attributes and times of the lower directory, because mounts show the tree
    /// in its place. An empty tree gets them again: an earlier run may have broken off.
    func makeTree() throws(StoreError) {
        do throws(Errno) {
            let name = Array(Store.treeName.utf8)
            do throws(Errno) { try folder.makeDirectory(name, mode: 0o700) } catch {
                if error.rawValue != EEXIST { throw error }
            }
            let tree = try Descriptor.openDirectory(at: folder, name)
            guard try DirectoryReader.names(in: tree).isEmpty else { return }
            let status = try lower.place.stat()
            // Without privilege the tree belongs to the user, whatever the lower directory's owner is.
            try? tree.setOwner(owner: status.st_uid, group: status.st_gid)
            try copyAttributes(to: tree)
            try tree.setMode(status.st_mode & 0o7777)
            try tree.setTimes(of: nil, access: status.st_atim, modification: status.st_mtim)
            try tree.fsync()
            try folder.fsync()
        } catch {
            throw StoreError("\(shown)/\(Store.treePath): \(error.text)")
        }
    }

    private static let accessLists = ["system.posix_acl_access", "system.posix_acl_default"]

    /// Copies all attributes except the record, which belongs to the lower directory's inode.
    private func copyAttributes(to tree: Descriptor) throws(Errno) {
        let names = try attributeNames()
        for name in names where !Store.attributes.contains(name) {
            do throws(Errno) {
                let value = try ExtendedAttributes.value(name, of: lower.original)
                try value.withBytes { bytes throws(Errno) in try ExtendedAttributes.set(name, of: tree, to: bytes) }
            } catch {
                // Only the kernel, or only root, may set some of them.
                guard [EPERM, EOPNOTSUPP, ENODATA, EINVAL].contains(error.rawValue) else { throw error }
            }
        }
        // A new directory has inherited these.
        for name in Self.accessLists where !names.contains(name) {
            try? tree.withProcPath { path throws(Errno) in try ExtendedAttributes.remove(name, of: path, .follow) }
        }
    }

    private func attributeNames() throws(Errno) -> [String] {
        do throws(Errno) {
            let list = try lower.original.withProcPath { path throws(Errno) in
                try ExtendedAttributes.list(of: path, .follow)
            }
            return ExtendedAttributes.names(in: list).map { String(decoding: $0.dropLast(), as: UTF8.self) }
        } catch {
            if error.rawValue == EOPNOTSUPP { return [] }
            throw error
        }
    }
}

/// The note in a lower directory, for people who look there while nothing is mounted.
extension Relocation {
    private static let noteName = Array("NOT-MOUNTED.txt".utf8)
    private static let noteHead = "PassHSM: the files of this directory are not mounted here."
    private static let note = """
        \(noteHead)

        Nothing is lost. The files are here when this command has run, with the path of this directory:

            passhsm mount DIRECTORY

        """

    /// Whether this name is a note of this program's, and not another file with that name.
    func isNote(_ name: [UInt8]) -> Bool {
        guard name == Self.noteName,
            let file = try? Descriptor.openQuietly(at: lower.place, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK),
            let mode = (try? file.stat())?.st_mode, mode & S_IFMT == S_IFREG
        else { return false }
        var bytes = [UInt8](repeating: 0, count: Self.noteHead.utf8.count)
        _ = bytes.withUnsafeMutableBytes { buffer in try? file.read(into: buffer, at: 0) }
        return bytes == Array(Self.noteHead.utf8)
    }

    /// Leaves the note if nothing has its name. On a full disk there is no note, and nothing depends on it.
    ///
    /// - Parameter temporary: the folder for files that are built before they get their name.
    func leaveNote(_ temporary: Descriptor) {
        if (try? lower.place.stat(Self.noteName)) != nil { return }
        do throws(Errno) {
            try? temporary.unlink(Self.noteName)
            let file = try temporary.makeFile(Self.noteName, mode: 0o600)
            try Array(Self.note.utf8).withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
            try file.setMode(0o444)
            try file.fsync()
            try temporary.rename(Self.noteName, to: lower.place, Self.noteName, replacing: false)
        } catch {
            try? temporary.unlink(Self.noteName)
        }
    }
}

/// The tag in the store's folder, for backups that root makes: the folder's mode does not keep root out.
extension Relocation {
    private static let cacheTagName = "CACHEDIR.TAG"
    /// The first bytes, as the Cache Directory Tagging Specification requires.
    private static let cacheTagSignature = "Signature: 8a477f597d28d172789f06886806bc55"
    private static let cacheTag = """
        \(cacheTagSignature)
        # The files below contain zeros where PassHSM has not fetched the content: back up the mount instead.
        # A copy of the whole lower directory, with extended attributes, has to include this folder.
        # See https://bford.info/cachedir/

        """

    /// Writes the tag where it is missing or damaged. If that fails there is no tag, and nothing depends on it.
    func leaveCacheTag() {
        try? Self.writeCacheTag(in: folder)
    }

    private static func writeCacheTag(in folder: Descriptor) throws(Errno) {
        let file = try Descriptor.openOwn(at: folder, cacheTagName, O_RDWR | O_CREAT)
        var start = [UInt8](repeating: 0, count: cacheTagSignature.utf8.count)
        _ = try start.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: 0) }
        if start == Array(cacheTagSignature.utf8) { return }
        try file.truncate(to: 0)
        try Array(cacheTag.utf8).withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
        try file.fsync()
        try folder.fsync()
    }
}
