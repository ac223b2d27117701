import CLinux
import Glibc
import HSMSystem
import Logging

/// Moves everything in a lower directory beside the store's folder into the tree, each name by one rename(2). A second
/// run goes on where the first broke off. The caller holds the store's lock.
struct Relocation {
    let lower: LowerDirectory
    /// The store's folder.
    let folder: Descriptor
    /// The lower directory's path, for people.
    let shown: String
    let log: Logger

    /// A name that was not moved.
    struct Left {
        let name: [UInt8]
        /// EEXIST: the tree has the name already.
        let error: Errno
    }

    /// Brings a store to the layout with the files in the tree, or continues where an earlier run broke off.
    ///
    /// - Parameters:
    ///   - configuration: is saved when it changes.
    ///   - isNew: the store has no configuration yet.
    ///   - mayBegin: files at the top may be moved. If something is in the way, they stay.
    /// - Returns: whether files were moved.
    func moveIfNeeded(_ configuration: inout StoreConfiguration, isNew: Bool, mayBegin: Bool) throws(StoreError) -> Bool
    {
        if isNew {
            if configuration.layout == .inside { try makeTree() }
            try configuration.write(to: folder)
        }
        if configuration.layout == .top && mayBegin {
            if let obstacle = obstacle(try names()) {
                log.warning("\(shown): the files stay where they are: \(obstacle)")
                return false
            }
            try makeTree()
            configuration.layout = .moving
            try configuration.write(to: folder)
        }
        // The tag comes before the first file.
        if configuration.layout != .top { leaveCacheTag() }
        guard configuration.layout == .moving else { return false }
        let tree = try Store.openTop(in: folder, of: lower.place, .moving, shown: shown)
        // Names that the tree already has were made at the top after the move began.
        if let failed = try move(into: tree).first(where: { $0.error.rawValue != EEXIST }) {
            throw StoreError("\(shown)/\(BytePath(failed.name)) cannot be moved into the tree: \(failed.error.text)")
        }
        configuration.layout = .inside
        try configuration.write(to: folder)
        log.notice("\(shown): the files were moved into \(Store.treePath), which programs enter only by a mount")
        return true
    }

    // MARK: Names

    /// The names in the lower directory that belong neither to the store nor to the file system.
    func names() throws(StoreError) -> [[UInt8]] {
        do throws(Errno) {
            return try DirectoryReader.names(in: lower.place).map { Array($0.dropLast()) }.filter { !isOwn($0) }
        } catch {
            throw StoreError("\(shown): \(error.text)")
        }
    }

    private func isOwn(_ name: [UInt8]) -> Bool {
        if name == Array(Store.folder.utf8) || isNote(name) { return true }
        // This is ext4's own folder, with its constant inode number: fsck looks for it at the top.
        guard name == Array("lost+found".utf8), let status = try? lower.place.stat(name) else { return false }
        return status.st_mode & S_IFMT == S_IFDIR && status.st_ino == 11
    }

    /// The reason why these names cannot be moved, found before one is moved: a mount point anywhere below, or a file
    /// that must not be renamed.
    private func obstacle(_ names: [[UInt8]]) -> String? {
        if names.isEmpty { return nil }
        if let path = Store.path(of: lower.original),
            let mount = (try? MountTable.entries())?.first(where: {
                $0.mountpoint != path && path.contains($0.mountpoint)
            })
        {
            return
                "\(mount.mountpoint) is a mount point: unmount it first, so that what is in \(shown) can be moved to "
                + Store.treePath
        }
        let fixed = names.first { name in
            (try? withName(name) { text throws(Errno) in passhsm_is_fixed(lower.place.raw, text) == 1 }) ?? false
        }
        return fixed.map {
            "\(shown)/\(BytePath($0)) is immutable or append-only (see chattr), and cannot be moved to \(Store.treePath)"
        }
    }

    /// Moves all names into the tree, and keeps the tree's times; durable when it returns.
    ///
    /// - Returns: the names that stay.
    /// - Throws: `StoreError` when something is in the way, before anything is moved; also when the disk fails.
    func move(into tree: Descriptor) throws(StoreError) -> [Left] {
        let names = try names()
        if let obstacle = obstacle(names) { throw StoreError(obstacle) }
        if names.isEmpty { return [] }
        var left: [Left] = []
        do throws(Errno) {
            let modified = try tree.stat().st_mtim
            for name in names {
                do throws(Errno) { try lower.place.rename(name, to: tree, name, replacing: false) } catch {
                    // The name was removed meanwhile.
                    if error.rawValue != ENOENT { left.append(Left(name: name, error: error)) }
                }
            }
            let top = try Descriptor.openDirectory(at: tree, [0x2e])
            try top.setTimes(of: nil, access: nil, modification: modified)
            try top.fsync()
            try lower.original.fsync()
        } catch {
            throw StoreError("\(shown): \(error.text)")
        }
        return left
    }
}
