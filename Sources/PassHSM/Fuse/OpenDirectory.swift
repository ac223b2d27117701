import Glibc
import HSMSystem
import Synchronization

/// An open directory: some bytes, and the stream that it is read by for as long as it is one of those read last.
final class OpenDirectory: Sendable {
    let inode: Inode
    let isRoot: Bool
    /// Held over readdir of the lower directory.
    private let lock = Lock()
    // Guarded by `lock`.
    private nonisolated(unsafe) var stream: DirectoryStream?
    /// The position of the end when it was just met: the kernel asks once more there.
    private nonisolated(unsafe) var end: Int?

    init(_ inode: Inode, isRoot: Bool, _ lower: Descriptor) {
        self.inode = inode
        self.isRoot = isRoot
        stream = DirectoryStream(lower)
    }

    /// Calls `body` with the lower directory and the entries from `start` on, until it returns false or there are no more.
    /// An entry for which it returned false comes again.
    ///
    /// - Parameters:
    ///   - size: about so many bytes of entries are wanted.
    ///   - open: opens the lower directory for reading.
    /// - Returns: whether the stream is kept.
    func entries(
        from start: Int, size: Int, open: () throws(Errno) -> Descriptor,
        _ body: (Descriptor, DirectoryReader.Entry) throws(Errno) -> Bool
    ) throws(Errno) -> Bool {
        try lock.withLock { () throws(Errno) in
            let known = end
            end = nil
            if known == start { return false }
            var current: DirectoryStream
            if let known = stream { current = known } else { current = DirectoryStream(try open()) }
            stream = nil
            if try current.entries(from: start, size: size, body) {
                end = current.position
                return false
            }
            stream = current
            return true
        }
    }

    /// Closes the stream; the next read opens it again. Does nothing while it is read.
    func suspend() { lock.withLockIfFree { stream = nil } }
}
