import Glibc
import HSMStore
import HSMSystem

/// Mappings of complete files, which are the lower file's own. A store through one moves the file's times, and tells
/// neither the kernel's FUSE nor the daemon. The kernel therefore may not keep the attributes of a file that could be
/// mapped for writing.
extension FileSystem {
    /// How many seconds the kernel may believe the attributes of `inode`.
    func attributeTimeout(_ inode: Inode) -> Double { inode.state.withLock(\.mapping.isPossible) ? 0 : timeout }

    /// Notes a handle that can be mapped for writing and is about to be answered. The kernel does not yet know the
    /// inode of a handle that `isNew`.
    func noteMapper(_ inode: Inode, isNew: Bool) {
        let isFirst = inode.state.withLock { state in
            defer { state.mapping.isPossible = true }
            state.mapping.handles += 1
            state.mapping.opens &+= 1
            return !state.mapping.isPossible
        }
        if isFirst && !isNew && timeout > 0 { forgetAttributes(of: inode) }
    }

    /// Makes the kernel ask for the attributes again. Does not wait. It is right whatever answers are under way,
    /// because the kernel does not take older ones.
    func forgetAttributes(of inode: Inode) {
        known.invalidate(inode, .none)
    }

    /// Called after the last handle that can be mapped was closed, because a mapping outlives its handle. ``sweep()``
    /// calls it again while a mapping is left.
    func lookForMapping(_ inode: Inode) {
        let opens = inode.state.withLock { $0.mapping.mayBeLeft ? $0.mapping.opens : nil }
        guard let opens else { return }
        if let lower = try? open(inode, O_RDONLY), store.isOpenForWriting(lower) { return inodes.watch(inode) }
        let isGone = inode.state.withLock { state in
            guard state.mapping.opens == opens else { return false }
            state.mapping.isPossible = false
            return true
        }
        // Attributes that were read before the last store may be under way. The kernel would believe them for long.
        if isGone && timeout > 0 { forgetAttributes(of: inode) }
        forget(inode, 0)
    }
}
