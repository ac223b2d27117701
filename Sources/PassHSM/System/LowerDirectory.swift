import CLinux
import Glibc

/// The lower directory as the daemon reaches it: through a private mount, so that the daemon enters neither its own
/// mount over the directory nor other mounts inside it.
package final class LowerDirectory: Sendable {
    /// O_PATH on the directory; all lookups start here or in a ``LowerTree``.
    package let place: Descriptor
    /// The directory as it was named. It keeps the file system busy, and identifies its mount.
    package let original: Descriptor
    /// For open_by_handle_at(2), which refuses O_PATH.
    let mount: Descriptor
    /// Whether ``place`` is a private mount, which takes CAP_SYS_ADMIN. Otherwise it is the plain directory.
    package let isPrivate: Bool

    /// Opens the directory at `path`.
    ///
    /// - Throws: ENOTDIR when `path` is not a directory; errors of open(2).
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

    /// The restrictions of the lower mount, as options of mount(8).
    package var mountOptions: [String] {
        var status = statvfs()
        guard fstatvfs(original.raw, &status) == 0 else { return ["nosuid", "nodev"] }
        func has(_ flag: UInt) -> Bool { status.f_flag & flag != 0 }
        return [
            has(PASSHSM_ST_NOSUID) ? "nosuid" : "suid", has(PASSHSM_ST_NODEV) ? "nodev" : "dev",
            has(PASSHSM_ST_NOEXEC) ? "noexec" : "exec",
        ]
    }

    /// The unique id of the lower directory's mount, which is not used again before the next boot; 0 where unknown.
    package var mountID: UInt64 { original.uniqueMountID }
}
