import Glibc
import HSMSystem

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The open files or directories, by the number that the kernel gets for each (`fh`). The daemon only ever looks such a
/// number up here. It never uses one in another way.
///
/// A number consists of the shard (the lowest 4 bits), the slot in the shard (24), how often the slot was used before
/// (28), and the ``OpenMode`` (8). Each request also names the node id. A daemon that did not open the file can
/// therefore open it again from the request alone.
final class HandleTable<Element: AnyObject & Sendable>: Sendable {
    private static var shardBits: UInt64 { 4 }
    private static var slotBits: UInt64 { 24 }
    private static var useBits: UInt64 { 28 }

    /// Leaf locks.
    private let shards: [NIOLockedValueBox<Shard>]

    private struct Slot {
        var element: Element?
        var uses: UInt64 = 0
        /// The next free slot, if this one is free.
        var nextFree: Int?
    }

    private struct Shard {
        var slots: [Slot] = []
        var firstFree: Int?
    }

    init() { shards = (0..<1 << Int(Self.shardBits)).map { _ in NIOLockedValueBox(Shard()) } }

    private static func mask(_ bits: UInt64) -> UInt64 { 1 << bits - 1 }

    private static func shard(_ number: UInt64) -> Int { Int(number & mask(shardBits)) }

    /// The slot that a number names; nil when the number is not that of the slot's present element.
    private static func slot(_ number: UInt64, in shard: Shard) -> Int? {
        let slot = Int(number >> shardBits & mask(slotBits))
        let uses = number >> (shardBits + slotBits) & mask(useBits)
        guard slot < shard.slots.count, shard.slots[slot].uses == uses else { return nil }
        return shard.slots[slot].element == nil ? nil : slot
    }

    /// Inserts `element`, which is kept until ``remove(_:)``, and returns its number. - Throws: ENFILE when 16 million
    /// are open in its shard.
    ///
    /// - Parameter node: the node id of the opened inode. Different inodes hardly ever share a shard's lock.
    func insert(_ element: Element, _ mode: OpenMode, of node: UInt64) throws(Errno) -> UInt64 {
        let shardNumber = Self.shard(node)
        let place = shards[shardNumber].withLockedValue { shard -> UInt64? in
            let slot = shard.firstFree ?? shard.slots.count
            if slot == shard.slots.count {
                guard slot < 1 << Int(Self.slotBits) else { return nil }
                shard.slots.append(Slot())
            }
            shard.firstFree = shard.slots[slot].nextFree
            shard.slots[slot].nextFree = nil
            shard.slots[slot].element = element
            return shard.slots[slot].uses << Self.slotBits | UInt64(slot)
        }
        guard let place else { throw Errno(rawValue: ENFILE) }
        return UInt64(mode.rawValue) << 56 | place << Self.shardBits | UInt64(shardNumber)
    }

    /// The element of a number from the kernel. - Throws: ESTALE for a number that this table did not give out, or that
    /// is closed.
    func find(_ number: UInt64) throws(Errno) -> Element {
        let found = shards[Self.shard(number)].withLockedValue { shard in
            Self.slot(number, in: shard).flatMap { shard.slots[$0].element }
        }
        guard let found else { throw Errno(rawValue: ESTALE) }
        return found
    }

    /// Removes and returns the element of a number; nil when there is none.
    func remove(_ number: UInt64) -> Element? {
        shards[Self.shard(number)].withLockedValue { shard in
            guard let slot = Self.slot(number, in: shard) else { return nil }
            shard.slots[slot].nextFree = shard.firstFree
            shard.firstFree = slot
            shard.slots[slot].uses = (shard.slots[slot].uses + 1) & Self.mask(Self.useBits)
            return shard.slots[slot].element.take()
        }
    }
}

/// How a file was opened, as far as a daemon that opens it again has to know. It is part of the file's number.
struct OpenMode: OptionSet, Sendable {
    let rawValue: UInt8

    /// The two lowest bits are open(2)'s access mode.
    static let synchronousData = OpenMode(rawValue: 1 << 2)
    static let synchronous = OpenMode(rawValue: 1 << 3)
    static let keepsAccessTime = OpenMode(rawValue: 1 << 4)
    /// The lower file is append-only.
    static let appends = OpenMode(rawValue: 1 << 5)
    /// The daemon gets the reads and writes. Without this flag the kernel reads and writes the lower file.
    static let cached = OpenMode(rawValue: 1 << 6)
    static let directory = OpenMode(rawValue: 1 << 7)
}
