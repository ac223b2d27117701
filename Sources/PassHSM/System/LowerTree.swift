import CLinux
import Glibc

/// The files of a lower directory: everything below the one directory in it that is the top of every mount.
package final class LowerTree: Sendable {
    /// O_PATH on the top of the tree.
    package let root: Descriptor
    /// The lower directory that holds the tree, or is the tree.
    package let directory: LowerDirectory
    /// Whether inodes can be opened by handle. False without CAP_DAC_READ_SEARCH, or on a file system without openable
    /// handles: every known inode then needs an O_PATH descriptor.
    package let opensHandles: Bool
    /// Numbers that lead back to the tree's inodes; nil where the file system allows none.
    package let numbering: NodeNumbering?
    /// The device number of the tree; an inode with another one belongs to a mount inside it.
    package let device: dev_t
    /// Whether mounts inside the tree stay invisible: see ``LowerDirectory/isPrivate``.
    package var isPrivate: Bool { directory.isPrivate }

    /// Uses the tree below `root`.
    ///
    /// - Parameter root: O_PATH on `directory`, or on a directory in it that was reached through
    ///   ``LowerDirectory/place``.
    /// - Throws: errors of fstatat(2).
    package init(_ directory: LowerDirectory, root: Descriptor) throws(Errno) {
        self.directory = directory
        self.root = root
        device = try root.stat().st_dev
        opensHandles = Self.canOpenHandle(of: root, on: directory.mount)
        numbering = opensHandles ? NodeNumbering(of: root, mount: directory.mount) : nil
    }

    private static func canOpenHandle(of root: Descriptor, on mount: Descriptor) -> Bool {
        // The root user of a user namespace may open handles of directories only.
        guard Capabilities.isInFirstUserNamespace, let handle = try? FileHandle(of: root) else { return false }
        return (try? handle.open(on: mount, O_RDONLY | O_DIRECTORY)) != nil
    }

    /// Opens a known inode.
    ///
    /// - Throws: ESTALE when it is gone; EPERM without ``opensHandles``.
    package func open(_ handle: FileHandle, _ flags: Int32) throws(Errno) -> Descriptor {
        try handle.open(on: directory.mount, flags)
    }

    /// Opens the inode of a number of ``numbering`` with O_PATH. The inode may be any of the file system, inside or
    /// outside of the tree.
    ///
    /// - Throws: ESTALE when there is none.
    package func open(number: UInt64) throws(Errno) -> Descriptor {
        guard let numbering else { throw Errno(rawValue: ESTALE) }
        return try numbering.open(number, on: directory.mount)
    }

    /// Whether `directory` is the top of the tree or below it, and is neither `excluded` nor below that.
    package func contains(_ directory: Descriptor, outside excluded: FileHandle) throws(Errno) -> Bool {
        let top = try FileHandle(of: root)
        var place = directory
        var handle = try FileHandle(of: place)
        while handle != top {
            if handle == excluded { return false }
            do throws(Errno) { place = try Descriptor.open(at: place.raw, "..", PASSHSM_O_PATH | O_DIRECTORY) } catch {
                // The parent is not part of the private mount.
                if error.rawValue == ENOENT { return false }
                throw error
            }
            // Without a private mount, the way up leads into other file systems.
            if !isPrivate, try place.stat().st_dev != device { return false }
            let parent = try FileHandle(of: place)
            // The root directory is its own parent.
            if parent == handle { return false }
            handle = parent
        }
        return true
    }
}
