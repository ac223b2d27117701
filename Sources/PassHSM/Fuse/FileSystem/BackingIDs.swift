import Glibc
import HSMFuseDoor
import HSMSystem

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The lower files that are registered with the kernel for passthrough: one id for each inode. The number of idle ids
/// is bounded.
///
/// An id costs the kernel an open file. It is kept nevertheless, because registering takes several system calls. The id
/// of an inode with open passthrough handles is never given back: two ids on one inode are an error (fs/fuse/iomode.c).
final class BackingIDs: Sendable {
    /// How many ids are kept. Ids of inodes with open handles may exceed it.
    private let limit: Int
    private let transport: any Transport
    /// A leaf lock, except that `Inode.state` may be taken inside it.
    private let ring = NIOLockedValueBox(Ring())

    /// The registered inodes in a ring, the place of each, and the hand of the clock algorithm.
    private struct Ring {
        var inodes: [Inode] = []
        /// Saves a search of the ring. The search would be slow when a process with thousands of open files ends.
        private var places: [ObjectIdentifier: Int] = [:]
        var hand = 0

        mutating func append(_ inode: Inode) {
            places[ObjectIdentifier(inode)] = inodes.count
            inodes.append(inode)
        }

        func place(of inode: Inode) -> Int? { places[ObjectIdentifier(inode)] }

        /// Removes the inode at `place`. The last inode moves there.
        mutating func remove(at place: Int) {
            places[ObjectIdentifier(inodes[place])] = nil
            let last = inodes.removeLast()
            guard place < inodes.count else { return }
            inodes[place] = last
            places[ObjectIdentifier(last)] = place
        }
    }

    init(_ transport: any Transport, limit: Int) {
        self.transport = transport
        self.limit = limit
    }

    var count: Int { ring.withLockedValue(\.inodes.count) }

    /// Registers the lower file of `inode` and returns its id. `lower` is open on that file; O_PATH is enough. The
    /// inode must have no id, and only one thread at a time may register it.
    func register(_ inode: Inode, _ lower: Descriptor) throws(Errno) -> Int32 {
        // The kernel writes with the credentials of the thread that registers the file.
        let id = try OrdinaryUser.write { () throws(Errno) in try transport.openBacking(lower.raw) }
        inode.state.withLock { state in
            // Without this mark the newest id would be evicted first once all the others were used.
            state.backing = .init(id: id, wasUsed: true)
        }
        let old = ring.withLockedValue { ring -> [Int32] in
            ring.append(inode)
            return evict(&ring, keeping: inode)
        }
        for id in old { transport.closeBacking(id) }
        return id
    }

    /// How many inodes one registration looks at. The bound matters when thousands of them are open.
    private static let maxSteps = 64

    /// The clock algorithm: an inode that was used since the hand last passed it stays for another round.
    ///
    /// - Parameter newest: the inode that is about to be opened. It is never evicted.
    private func evict(_ ring: inout Ring, keeping newest: Inode) -> [Int32] {
        var result: [Int32] = []
        var steps = 0
        while ring.inodes.count > limit && steps < Self.maxSteps {
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
        transport.closeBacking(id)
    }
}
