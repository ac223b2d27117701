import Glibc
import HSMFuseDoor
import HSMSystem
import Synchronization

/// An open directory. It takes few bytes, and has a stream only while it is one of the directories that were read last.
final class OpenDirectory: Sendable {
    let inode: Inode
    let isRoot: Bool
    /// Held over readdir of the lower directory.
    private let lock = Lock()
    // Guarded by `lock`.
    private nonisolated(unsafe) var stream: DirectoryStream?
    /// The position of the end, when the last read met it: the kernel asks once more there.
    private nonisolated(unsafe) var end: Int?

    init(_ inode: Inode, isRoot: Bool, _ lower: Descriptor) {
        self.inode = inode
        self.isRoot = isRoot
        stream = DirectoryStream(lower)
    }

    /// Calls `body` with the lower directory and the entries from `start` on, until `body` returns false or there are
    /// no more entries. An entry for which `body` returned false comes again.
    ///
    /// - Parameters:
    ///   - size: how many bytes of entries are wanted, roughly.
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

    /// Closes the stream; the next read opens it again. Does nothing while a read uses the stream.
    func suspend() { lock.withLockIfFree { stream = nil } }
}
