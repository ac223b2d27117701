import CLinux
import Glibc

/// The lower directory as the daemon reaches it: through a private mount of its own, so that neither the mount that
/// is laid over it nor other mounts inside it are ever entered.
package final class LowerDirectory: Sendable {
    /// O_PATH on the directory; all lookups start here or in a ``LowerTree``.
    package let place: Descriptor
    /// The directory as it was named: holds the file system busy, and tells its mount.
    package let original: Descriptor
    /// For open_by_handle_at(2), which refuses O_PATH.
    let mount: Descriptor
    /// True when the directory is a mount of its own (CAP_SYS_ADMIN), false when it is the plain directory.
    package let isPrivate: Bool

    /// - Throws: ENOTDIR when `path` is not a directory, and what open(2) throws.
    package init(path: UnsafePointer<CChar>) throws(Errno) {
        original = try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
        let clone = passhsm_clone_tree(original.raw)
        isPrivate = clone >= 0
        if clone >= 0 {
            place = Descriptor(owning: clone)
            mount = try Descriptor.open(at: clone, ".", O_RDONLY | O_DIRECTORY)
        } else {
            place = try Descriptor.open(at: original.raw, ".", PASSHSM_O_PATH | O_DIRECTORY)
            mount = original
        }
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
