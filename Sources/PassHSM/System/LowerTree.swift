import CLinux
import Glibc

/// The lower directory as the daemon reaches it: through a private mount of its own, so that neither the mount that
/// is laid over it nor other mounts inside it are ever entered.
package final class LowerTree: Sendable {
    /// O_PATH on the top directory; lookups start here.
    package let root: Descriptor
    /// The top directory as it was named: holds the file system busy, and tells its mount.
    package let original: Descriptor
    /// For open_by_handle_at(2), which refuses O_PATH.
    private let mount: Descriptor
    /// False without CAP_DAC_READ_SEARCH, or on a file system without openable handles: then every known inode needs
    /// an O_PATH descriptor.
    package let opensHandles: Bool
    /// Numbers that lead back to the tree's inodes; nil where there are none.
    package let numbering: NodeNumbering?
    /// The device number of the tree; an inode with another one belongs to a mount inside it.
    package let device: dev_t
    /// True when the tree is a mount of its own (CAP_SYS_ADMIN), false when it is the plain directory.
    package let isPrivate: Bool

    /// - Throws: ENOTDIR when `path` is not a directory, and what open(2) throws.
    package init(path: UnsafePointer<CChar>) throws(Errno) {
        original = try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
        let clone = passhsm_clone_tree(original.raw)
        isPrivate = clone >= 0
        if clone >= 0 {
            root = Descriptor(owning: clone)
            mount = try Descriptor.open(at: clone, ".", O_RDONLY | O_DIRECTORY)
        } else {
            root = try Descriptor.open(at: original.raw, ".", PASSHSM_O_PATH | O_DIRECTORY)
            mount = original
        }
        device = try root.stat().st_dev
        opensHandles = Self.canOpenHandle(of: root, on: mount)
        numbering = opensHandles ? NodeNumbering(of: root, mount: mount) : nil
    }

    private static func canOpenHandle(of root: Descriptor, on mount: Descriptor) -> Bool {
        // Root of a user namespace may open handles of directories only.
        guard Capabilities.isInFirstUserNamespace, let handle = try? FileHandle(of: root) else { return false }
        return (try? handle.open(on: mount, O_RDONLY | O_DIRECTORY)) != nil
    }

    /// Opens a known inode. - Throws: ESTALE when it is gone, EPERM without ``opensHandles``.
    package func open(_ handle: FileHandle, _ flags: Int32) throws(Errno) -> Descriptor {
        try handle.open(on: mount, flags)
    }

    /// Opens the inode of one of ``numbering``'s numbers with O_PATH. It may be any of the file system, not only of the tree.
    ///
    /// - Throws: ESTALE when there is none.
    package func open(number: UInt64) throws(Errno) -> Descriptor {
        guard let numbering else { throw Errno(rawValue: ESTALE) }
        return try numbering.open(number, on: mount)
    }

    /// Whether `directory` is the top directory or below it, and neither `excluded` nor below that.
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
            // Without a private mount the way up leads on into other file systems.
            if !isPrivate, try place.stat().st_dev != device { return false }
            let parent = try FileHandle(of: place)
            // The top of everything is its own parent.
            if parent == handle { return false }
            handle = parent
        }
        return true
    }

    /// What the lower mount allows, as options of mount(8).
    package var mountOptions: [String] {
        var status = statvfs()
        guard fstatvfs(original.raw, &status) == 0 else { return ["nosuid", "nodev"] }
        func has(_ flag: UInt) -> Bool { status.f_flag & flag != 0 }
        return [
            has(PASSHSM_ST_NOSUID) ? "nosuid" : "suid", has(PASSHSM_ST_NODEV) ? "nodev" : "dev",
            has(PASSHSM_ST_NOEXEC) ? "noexec" : "exec",
        ]
    }

    /// The mount of the lower directory, by an id that is never used again until the next boot; 0 where unknown.
    package var mountID: UInt64 { original.uniqueMountID }
}
