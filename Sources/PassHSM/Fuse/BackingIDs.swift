import CFuse
import Glibc
import HSMSystem
import Synchronization

/// The lower files that are registered with the kernel for passthrough: one id an inode, the idle ones of them bounded.
///
/// An id costs the kernel an open file, and is kept because registering costs several system calls. Ids of inodes with
/// open passthrough handles are never given back: two ids on one inode are an error (fs/fuse/iomode.c).
final class BackingIDs: Sendable {
    /// Ids kept, open ones aside.
    private let limit: Int
    private let device: Int32
    /// Registered inodes in a ring, and the hand of the clock. A leaf lock but for the inode's own, which is taken inside.
    private let ring = Mutex<(inodes: [Inode], hand: Int)>(([], 0))

    init(device: Int32, limit: Int) {
        self.device = device
        self.limit = limit
    }

    var count: Int { ring.withLock(\.inodes.count) }

    /// Registers the lower file of `inode`, on which `lower` is open (O_PATH will do). To be called by one thread an inode
    /// at a time, while it has no id.
    func register(_ inode: Inode, _ lower: Descriptor) throws(Errno) -> Int32 {
        // The kernel writes as whoever registers.
        let id = try OrdinaryUser.write { () throws(Errno) in try check { passhsm_backing_open(device, lower.raw) } }
        inode.state.withLock { state in
            state.backingID = id
            // Otherwise the newest would be the first to go once all the others were used.
            state.wasUsed = true
        }
        let old = ring.withLock { ring -> [Int32] in
            ring.inodes.append(inode)
            return evict(&ring.inodes, &ring.hand, keeping: inode)
        }
        for id in old { _ = passhsm_backing_close(device, UInt32(id)) }
        return id
    }

    /// Inodes that one registration looks at, for all of thousands may be open.
    private static let mostSteps = 64

    /// The clock algorithm: whoever was used since the hand last passed gets another round.
    ///
    /// - Parameter newest: about to be opened.
    private func evict(_ inodes: inout [Inode], _ hand: inout Int, keeping newest: Inode) -> [Int32] {
        var result: [Int32] = []
        var steps = 0
        while inodes.count > limit && steps < Self.mostSteps {
            steps += 1
            if hand >= inodes.count { hand = 0 }
            let isNewest = inodes[hand] === newest
            let freed = inodes[hand].state.withLock { state -> Int32? in
                if isNewest || state.passthroughOpens > 0 { return nil }
                if state.wasUsed {
                    state.wasUsed = false
                    return nil
                }
                defer { state.backingID = 0 }
                return state.backingID
            }
            guard let freed else {
                hand += 1
                continue
            }
            result.append(freed)
            inodes.swapAt(hand, inodes.count - 1)
            inodes.removeLast()
        }
        return result
    }

    /// Gives back the id of an inode that the kernel has forgotten.
    func drop(_ inode: Inode) {
        let id = inode.state.withLock { state -> Int32 in
            defer { state.backingID = 0 }
            return state.backingID
        }
        guard id != 0 else { return }
        ring.withLock { ring in
            if let index = ring.inodes.firstIndex(where: { $0 === inode }) {
                ring.inodes.swapAt(index, ring.inodes.count - 1)
                ring.inodes.removeLast()
            }
        }
        _ = passhsm_backing_close(device, UInt32(id))
    }
}
