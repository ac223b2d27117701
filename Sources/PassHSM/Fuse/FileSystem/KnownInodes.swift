import CLinux
import Glibc
import HSMFiles
import HSMFuseDoor
import HSMStore
import HSMSystem
import Synchronization

/// The inodes that the kernel knows, the access to their lower files, and the resources that the kernel and the daemon
/// keep for them.
///
/// The module Files sees FUSE only through this class. It counts descriptors, and makes the kernel drop data that is no
/// longer true.
final class KnownInodes: Sendable {
    let store: Store
    let tree: LowerTree
    let table: InodeTable
    let root: Inode
    /// Counts the descriptors that the daemon keeps for users.
    let shares: DescriptorShares
    /// Set once passthrough is agreed with the kernel; nil without it.
    let backing = Mutex<BackingIDs?>(nil)
    /// Makes the kernel forget its data about an inode. Set by the mount.
    let invalidation = Mutex<Invalidation?>(nil)

    /// A struct around the closure: a Mutex that held the bare closure would wrap it once more at every access.
    struct Invalidation {
        /// Makes the kernel forget the attributes, and these pages.
        let call: @Sendable (UInt64, PageSelection) -> Void

        init(_ call: @escaping @Sendable (UInt64, PageSelection) -> Void) { self.call = call }
    }

    init(_ store: Store, _ shares: DescriptorShares) throws(Errno) {
        self.store = store
        self.shares = shares
        tree = store.tree
        let path = tree.opensHandles ? nil : tree.root
        root = Inode(handle: try FileHandle(of: tree.root), id: .root, type: S_IFDIR, path: path, residence: .local)
        table = InodeTable(numbering: tree.numbering)
    }

    /// The inode that `file` is open on (with O_PATH), with one more reference for the kernel, and its lower
    /// attributes.
    func reference(_ file: Descriptor) throws(Errno) -> (inode: Inode, status: stat) {
        let status = try file.stat()
        // Without a private mount the lookup may meet a mount point inside the tree, which is not part of the tree.
        if !tree.isPrivate && status.st_dev != tree.device { throw Errno(rawValue: EXDEV) }
        let handle = try FileHandle(of: file)
        if handle == root.handle { return (root, status) }
        if let known = table.reference(handle) { return (known, status) }
        let type = status.st_mode & S_IFMT
        let (residence, changed) =
            type == S_IFREG ? store.residence(of: file, status) : (.local, changed: status.st_ctim)
        let isOurs = changed.tv_sec != status.st_ctim.tv_sec || changed.tv_nsec != status.st_ctim.tv_nsec
        let path = tree.opensHandles ? nil : file
        if path != nil && file.raw >= shares.limit { throw Errno(rawValue: EMFILE) }
        let inode = table.insert(handle) { id in
            Inode(
                handle: handle, id: id, type: type, path: path, residence: residence,
                change: isOurs ? ShownChange(own: status.st_ctim, shown: changed) : nil)
        }
        return (inode, status)
    }

    /// Takes back references of the kernel. When none is left and the file is not in use, the daemon keeps nothing
    /// about the inode. To be called with 0 when the file is no longer in use.
    func forget(_ inode: Inode, _ count: UInt64) {
        guard inode !== root, table.forget(inode, count) else { return }
        backing.withLock { $0 }?.drop(inode)
        let (isUnlinked, nameless) = inode.state.withLock { ($0.isUnlinked, $0.nameless.take()) }
        // The lower file may go only now.
        _ = consume nameless
        if isUnlinked && inode.isRegular { cleanUp(inode) }
    }

    /// Removes the store's data about a file whose last name was removed.
    private func cleanUp(_ inode: Inode) {
        do throws(Errno) {
            _ = try open(inode, PASSHSM_O_PATH)
        } catch {
            if error.rawValue == ESTALE { store.forget(inode.handle) }
        }
    }

    /// Makes the kernel forget the attributes, and these pages. It may wait for reads of these pages.
    func invalidate(_ inode: Inode, _ pages: PageSelection) {
        invalidation.withLock { $0 }?.call(inode.node, pages)
    }
}

extension KnownInodes: FileObserver {
    func find(_ handle: FileHandle) -> Inode? { table.find(handle) }

    func hold(_ place: Descriptor) throws(Errno) -> Inode? {
        let inode = try reference(place).inode
        if inode.isRegular { return inode }
        drop(inode)
        return nil
    }

    func drop(_ inode: Inode) { forget(inode, 1) }

    func open(_ inode: Inode, _ flags: Int32) throws(Errno) -> Descriptor {
        if let path = inode.path {
            return flags & PASSHSM_O_PATH != 0 ? path : try path.reopen(flags)
        }
        return try tree.open(inode.handle, flags)
    }

    func willActivate(
        _ inode: Inode, _ lower: Descriptor, for user: CallerUser?
    ) throws(Errno) -> DescriptorShares.Share? {
        guard let user else { return nil }
        return try shares.take(lower, for: user.user)
    }

    func didActivate(_ inode: Inode, _ share: DescriptorShares.Share?) {
        if let share { inode.state.withLock { $0.descriptors.shares.append(share) } }
        table.watch(inode)
    }

    func didDeactivate(_ inode: Inode, _ content: IncompleteFile, isFinished: Bool) {
        let isRefused = content.fill.isRefused
        let ended = inode.state.withLock { state in
            // The kernel has pages of the content that was found wrong.
            if isRefused { state.pages?.areStale = true }
            return state.takeUnusedShares()
        }
        _ = consume ended
    }

    func willRelease(_ inode: Inode, _ lower: Descriptor) throws(Errno) {}

    func didRefetch(_ inode: Inode) {
        inode.state.withLock { state in
            state.pages?.areStale = true
            state.change = nil
        }
    }

    func didStayDirty(_ inode: Inode, _ lower: Descriptor) {}

    func forgetPages(of inode: Inode) { invalidate(inode, .all) }

    func noLongerUsed(_ inode: Inode) { forget(inode, 0) }
}
