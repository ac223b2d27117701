import CLinux
import Glibc

/// The open directories from a top directory down to a current one, at any depth, with a bounded number of descriptors.
/// Not thread-safe.
///
/// The directories nearest to the current one stay open. The others are closed, and opened again through `..` on the
/// way back; device and inode number prove that it is the same directory.
package struct DirectoryStack {
    private struct Level {
        let name: [UInt8]
        let device: dev_t
        let inode: ino_t
        var descriptor: Descriptor?
    }

    /// The directory that was pushed last.
    package private(set) var current: Descriptor
    private let top: Descriptor
    private let limit: Int
    private var levels: [Level]

    /// - Parameter limit: directories below the top that stay open; at least 2.
    package init(top: Descriptor, limit: Int = 256) throws(Errno) {
        precondition(limit >= 2)
        let status = try top.stat()
        self.top = top
        self.limit = limit
        current = top
        levels = [Level(name: [], device: status.st_dev, inode: status.st_ino, descriptor: top)]
    }

    /// How far the current directory is below the top.
    package var depth: Int { levels.count - 1 }

    /// The path of the current directory below the top: bytes, joined by `/`; empty for the top.
    package var path: [UInt8] { Array(levels.dropFirst().map(\.name).joined(separator: [0x2f])) }

    /// Goes down to `directory`, which is `name` in the current one.
    ///
    /// - Returns: the depth of the directory that was closed to make room, if one was.
    @discardableResult
    package mutating func push(_ directory: Descriptor, name: [UInt8]) throws(Errno) -> Int? {
        let status = try directory.stat()
        levels.append(Level(name: name, device: status.st_dev, inode: status.st_ino, descriptor: directory))
        current = directory
        let farthest = depth - limit
        // The top stays open: the way back to it is the last resort.
        guard farthest > 0 else { return nil }
        levels[farthest].descriptor = nil
        return farthest
    }

    /// Goes back to the parent directory. Does nothing at the top.
    ///
    /// - Throws: ESTALE when the parent was closed and is no longer at its place. The stack then stays at the child.
    package mutating func pop() throws(Errno) {
        guard depth > 0 else { return }
        let parent = levels[depth - 1]
        let descriptor: Descriptor
        if let open = parent.descriptor {
            descriptor = open
        } else {
            descriptor = try reopenParent()
        }
        levels.removeLast()
        levels[depth].descriptor = descriptor
        current = descriptor
    }

    private func reopenParent() throws(Errno) -> Descriptor {
        let parent = levels[depth - 1]
        if let found = try? Descriptor.openDirectory(at: current, [0x2e, 0x2e]), isSame(found, parent) { return found }
        // The child was moved elsewhere meanwhile, so the names lead back instead.
        var found = top
        for level in levels.dropFirst().dropLast() {
            found = try Descriptor.openDirectory(at: found, level.name)
        }
        guard isSame(found, parent) else { throw Errno(rawValue: ESTALE) }
        return found
    }

    private func isSame(_ descriptor: Descriptor, _ level: Level) -> Bool {
        guard let status = try? descriptor.stat() else { return false }
        return status.st_dev == level.device && status.st_ino == level.inode
    }
}
