import CLinux
import Glibc
import HSMSystem

/// The mount that users see: a clone of the mount that the tree lies on, marked before anybody can reach it.
struct PrivateMount {
    /// O_PATH on the top of the clone. It holds the mount, and has to be closed before the mount can be unmounted.
    private let top: Descriptor
    /// Its unique id.
    let id: UInt64

    /// Clones the mount that `tree` is open on, from there on down (open_tree(2)); nobody sees the clone yet.
    init(of tree: Descriptor) throws(Errno) {
        top = Descriptor(owning: try check { passhsm_clone_tree(tree.raw) })
        id = passhsm_unique_mount_id(top.raw)
    }

    func mark(_ group: EventGroup) throws(Errno) { try group.markMount(of: top) }

    /// Makes it nosuid and nodev. To be called before it is attached.
    func withholdRights() throws(Errno) { _ = try check { passhsm_withhold_rights(top.raw) } }

    /// Attaches the clone, then makes it unbindable: a clone of it would have no mark, and show holes for content. The
    /// order matters: the kernel attaches no unbindable mount below a shared one, and systemd makes all mounts shared.
    ///
    /// Works on descriptors: a user who can write a directory above the mount point could replace it after its path was
    /// checked.
    func attach(at mountpoint: BytePath) throws(Errno) {
        let place = try Descriptor.openExactly(mountpoint.cString)
        _ = try check { passhsm_attach_mount(top.raw, place.raw) }
        do throws(Errno) {
            try top.withProcPath { path throws(Errno) in _ = try check { passhsm_make_unbindable(path) } }
        } catch {
            try? MountTable.unmount(mountpoint, lazily: true)
            throw error
        }
    }
}
