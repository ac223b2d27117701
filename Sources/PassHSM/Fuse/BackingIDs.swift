import CFuse
import Glibc
import HSMSystem

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The lower files that are registered with the kernel for passthrough: one id an inode, the idle ones of them bounded.
///
/// An id costs the kernel an open file, and is kept because registering costs several system calls. Ids of inodes with
/// open passthrough handles are never given back: two ids on one inode are an error (fs/fuse/iomode.c).
final class BackingIDs: Sendable {
    /// Ids kept, open ones aside.
    private let limit: Int
    private let device: Int32
    /// A leaf lock but for the inode's own, which is taken inside.
    private let ring = NIOLockedValueBox(Ring())

    /// Registered inodes in a ring, where each of them is, and the hand of the clock.
    private struct Ring {
        var inodes: [Inode] = []
        /// A search would be felt where a process ends that has thousands of files open.
        private var places: [ObjectIdentifier: Int] = [:]
        var hand = 0

        mutating func append(_ inode: Inode) {
            places[ObjectIdentifier(inode)] = inodes.count
            inodes.append(inode)
        }

        func place(of inode: Inode) -> Int? { places[ObjectIdentifier(inode)] }

        /// The last one takes its place.
        mutating func remove(at place: Int) {
            places[ObjectIdentifier(inodes[place])] = nil
            let last = inodes.removeLast()
            guard place < inodes.count else { return }
            inodes[place] = last
            places[ObjectIdentifier(last)] = place
        }
    }

    init(device: Int32, limit: Int) {
        self.device = device
        self.limit = limit
    }

    var count: Int { ring.withLockedValue(\.inodes.count) }

    /// Registers the lower file of `inode`, on which `lower` is open (O_PATH will do). To be called by one thread an inode
    /// at a time, while it has no id.
    func register(_ inode: Inode, _ lower: Descriptor) throws(Errno) -> Int32 {
        // The kernel writes as whoever registers.
        let id = try OrdinaryUser.write { () throws(Errno) in try check { passhsm_backing_open(device, lower.raw) } }
        inode.state.withLock { state in
            // Otherwise the newest would be the first to go once all the others were used.
            state.backing = .init(id: id, wasUsed: true)
        }
        let old = ring.withLockedValue { ring -> [Int32] in
            ring.append(inode)
            return evict(&ring, keeping: inode)
        }
        for id in old { _ = passhsm_backing_close(device, UInt32(id)) }
        return id
    }

    /// Inodes that one registration looks at, for all of thousands may be open.
    private static let mostSteps = 64

    /// The clock algorithm: whoever was used since the hand last passed gets another round.
    ///
    /// - Parameter newest: about to be opened.
    private func evict(_ ring: inout Ring, keeping newest: Inode) -> [Int32] {
        var result: [Int32] = []
        var steps = 0
        while ring.inodes.count > limit && steps < Self.mostSteps {
            steps += 1
            if ring.hand >= ring.inodes.count { ring.hand = 0 }
            let inode = ring.inodes[ring.hand]
            let isNewest = inode === newest
            let freed = inode.state.withLock { state -> Int32? in
                if isNewest || state.lifecycle.handles.direct > 0 { return nil }
                if state.backing.wasUsed {
                    state.backing.wasUsed = false
                    return nil
                }
                defer { state.backing.id = 0 }
                return state.backing.id
            }
            guard let freed else {
                ring.hand += 1
                continue
            }
            result.append(freed)
            ring.remove(at: ring.hand)
        }
        return result
    }

    /// Gives back the id of an inode that the kernel has forgotten.
    func drop(_ inode: Inode) {
        let id = inode.state.withLock { state -> Int32 in
            defer { state.backing.id = 0 }
            return state.backing.id
        }
        guard id != 0 else { return }
        ring.withLockedValue { ring in
            if let place = ring.place(of: inode) { ring.remove(at: place) }
        }
        _ = passhsm_backing_close(device, UInt32(id))
    }
}
