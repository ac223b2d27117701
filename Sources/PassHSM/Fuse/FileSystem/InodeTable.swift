import HSMSystem
import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The inodes that the kernel knows, by node id and by file handle. The table holds them for the kernel. The daemon
/// only ever looks a number from the kernel up here. It never uses one in another way.
///
/// The node id of an inode is its number of ``NodeNumbering``, which the next daemon understands too. An inode without
/// such a number, or whose number another inode has, gets a made-up id. Only this table knows made-up ids.
///
/// An inode that the kernel has forgotten stays while its incomplete file is in use, because there must never be two
/// objects for one file. An inode also stays while its dirty flag may be taken back when its last mapping is gone.
final class InodeTable: Sendable {
    private static let shardBits = 6
    /// Sharded by the lowest bits of the node id. While a shard's lock is held, only `Inode.state` is taken.
    private let shards: [NIOLockedValueBox<Shard>]
    private let numbering: NodeNumbering?
    /// The generation of made-up ids. The kernel does not take a made-up id of another daemon for one of this daemon.
    private let generation = UInt32.random(in: 0...UInt32.max)
    /// The inodes that are looked at once a second. A look at all inodes would be slow with a million of them. A leaf
    /// lock.
    private let watched = NIOLockedValueBox<[ObjectIdentifier: Inode]>([:])

    private struct Shard {
        var inodes: [UInt64: Inode] = [:]
        /// The inodes with made-up ids.
        var madeUp: [FileHandle: Inode] = [:]
        /// Counts made-up ids. It starts at a random number, so that an old id hardly ever equals a new one.
        var count = UInt64.random(in: 0...UInt64.max)
    }

    /// The place where an inode is, or would be.
    private struct Place {
        let shard: Int
        /// Nil when the inode can only have a made-up id.
        let number: UInt64?
    }

    /// - Parameter numbering: the numbering of the lower file system; nil when its inodes have no numbers of their own.
    init(numbering: NodeNumbering?) {
        self.numbering = numbering
        shards = (0..<1 << Self.shardBits).map { _ in NIOLockedValueBox(Shard()) }
    }

    var count: Int { shards.reduce(0) { $0 + $1.withLockedValue(\.inodes.count) } }

    private static func shard(_ node: UInt64) -> Int { Int(node & (1 << shardBits - 1)) }

    private func place(_ handle: FileHandle) -> Place {
        if let number = numbering?.number(of: handle) { return Place(shard: Self.shard(number), number: number) }
        return Place(shard: Self.shard(UInt64(UInt(bitPattern: handle.hashValue))), number: nil)
    }

    private static func find(_ handle: FileHandle, _ place: Place, in shard: Shard) -> Inode? {
        if let number = place.number, let inode = shard.inodes[number], inode.handle == handle { return inode }
        return shard.madeUp.isEmpty ? nil : shard.madeUp[handle]
    }

    /// The inode of a node id from the kernel, without a reference for it; nil when the id is unknown.
    func find(_ node: UInt64) -> Inode? {
        shards[Self.shard(node)].withLockedValue { $0.inodes[node] }
    }

    /// The inode if it is known, without a reference for the kernel.
    func find(_ handle: FileHandle) -> Inode? {
        let place = place(handle)
        return shards[place.shard].withLockedValue { Self.find(handle, place, in: $0) }
    }

    /// The known inode with one more reference; nil when it is unknown.
    func reference(_ handle: FileHandle) -> Inode? {
        let place = place(handle)
        return shards[place.shard].withLockedValue { shard in
            let inode = Self.find(handle, place, in: shard)
            inode?.lookups += 1
            return inode
        }
    }

    /// The inode with one more reference: the known one, or else a new one from `make`. `make` is called with the lock
    /// of the shard.
    func insert(_ handle: FileHandle, _ make: (NodeID) -> Inode) -> Inode {
        let place = place(handle)
        return shards[place.shard].withLockedValue { shard in
            let inode = Self.find(handle, place, in: shard) ?? add(handle, place, to: &shard, make)
            inode.lookups += 1
            return inode
        }
    }

    private func add(_ handle: FileHandle, _ place: Place, to shard: inout Shard, _ make: (NodeID) -> Inode) -> Inode {
        if let numbering, let number = place.number, shard.inodes[number] == nil {
            let inode = make(NodeID(number: number, generation: numbering.generation(of: handle)))
            shard.inodes[number] = inode
            return inode
        }
        var number: UInt64
        repeat {
            shard.count &+= 1
            number = NodeNumbering.firstFree | shard.count << Self.shardBits | UInt64(place.shard)
        } while shard.inodes[number] != nil
        let inode = make(NodeID(number: number, generation: generation))
        shard.inodes[number] = inode
        shard.madeUp[handle] = inode
        return inode
    }

    /// Takes back `count` references. Returns true when the inode was removed from the table because it is no longer
    /// needed.
    func forget(_ inode: Inode, _ count: UInt64) -> Bool {
        shards[Self.shard(inode.node)].withLockedValue { shard in
            inode.lookups -= min(count, inode.lookups)
            let isNeeded = inode.lookups > 0 || inode.state.withLock(\.isInUse)
            if isNeeded || shard.inodes[inode.node] !== inode { return false }
            shard.inodes[inode.node] = nil
            if !shard.madeUp.isEmpty, shard.madeUp[inode.handle] === inode { shard.madeUp[inode.handle] = nil }
            return true
        }
    }

    /// To be called after ``Inode/State/isWatched`` became true.
    func watch(_ inode: Inode) { watched.withLockedValue { $0[ObjectIdentifier(inode)] = inode } }

    /// Takes out the watched inodes. The caller has to watch those again that still need it.
    func takeWatched() -> [Inode] {
        watched.withLockedValue { all in
            defer { all = [:] }
            return Array(all.values)
        }
    }

    func count(where filter: (Inode) -> Bool) -> Int {
        shards.reduce(0) { $0 + $1.withLockedValue { $0.inodes.values.count(where: filter) } }
    }
}
