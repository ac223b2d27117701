import CFuse
import Glibc
import HSMStore
import HSMSystem

/// Mappings of complete files, which are the lower file's own: a store moves the file's times, and tells neither the kernel's
/// FUSE nor the daemon. So the kernel may not keep the attributes of a file that could be mapped for writing.
extension FileSystem {
    /// Seconds that the kernel may believe the attributes of `inode`.
    func attributeTimeout(_ inode: Inode) -> Double { inode.state.withLock(\.mapping.isPossible) ? 0 : timeout }

    /// A handle that can be mapped for writing is about to be answered; the inode of one that is `isNew` the kernel does not
    /// know yet.
    func noteMapper(_ inode: Inode, isNew: Bool) {
        let isFirst = inode.state.withLock { state in
            defer { state.mapping.isPossible = true }
            state.mapping.handles += 1
            state.mapping.opens &+= 1
            return !state.mapping.isPossible
        }
        if isFirst && !isNew && timeout > 0 { forgetAttributes(of: inode) }
    }

    /// Makes the kernel ask again. Does not wait, and is right whatever answers are on their way: the kernel does not take
    /// older ones.
    func forgetAttributes(of inode: Inode) {
        known.invalidate(inode, .none)
    }

    /// After the last such handle was closed: a mapping outlives its handle. Asked again by ``sweep()`` while there is one.
    func lookForMapping(_ inode: Inode) {
        let opens = inode.state.withLock { $0.mapping.mayBeLeft ? $0.mapping.opens : nil }
        guard let opens else { return }
        if let lower = try? open(inode, O_RDONLY), store.isOpenForWriting(lower) { return inodes.watch(inode) }
        let isGone = inode.state.withLock { state in
            guard state.mapping.opens == opens else { return false }
            state.mapping.isPossible = false
            return true
        }
        // Attributes may be on their way that were read before the last store, and are to be believed for long.
        if isGone && timeout > 0 { forgetAttributes(of: inode) }
        forget(inode, 0)
    }
}
