import Glibc
import HSMSystem

extension Store {
    /// Whether a file of the lower file system is one of those in `.passhsm`, or lies beside the tree in the lower
    /// directory. It searches the folders, unless the file cannot be the store's (``Descriptor/openOwn(at:_:_:)``).
    ///
    /// - Parameter status: the file's attributes, read before this call.
    package func owns(_ status: stat) throws(Errno) -> Bool {
        guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 1, Descriptor.isOwn(status) else { return false }
        let beside = layout == .top ? [] : [tree.directory.original]
        for folder in try [directory, partial, keys, objects.openFolder(), temporary].compactMap({ $0 }) + beside {
            if try DirectoryReader.has(inode: UInt64(status.st_ino), in: folder) { return true }
        }
        return false
    }
}
