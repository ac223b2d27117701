import Glibc
import HSMSystem

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// What is open, by the numbers that the kernel gets for it (`fh`). A number from the kernel is looked up here, and nothing
/// else is ever made of it.
///
/// A number consists of a shard (4 bits, the lowest), the slot in it (24), how often the slot was used before (28), and how
/// the file was opened (8, see ``OpenMode``). Each request tells the node id too, so a daemon that did not open the file can
/// open it again by what the request says.
final class HandleTable<Element: AnyObject & Sendable>: Sendable {
    private static var shardBits: UInt64 { 4 }
    private static var slotBits: UInt64 { 24 }
    private static var useBits: UInt64 { 28 }

    /// Leaf locks.
    private let shards: [NIOLockedValueBox<Shard>]

    private struct Slot {
        var element: Element?
        var uses: UInt64 = 0
        /// Of a free slot: the next free one.
        var nextFree: Int?
    }

    private struct Shard {
        var slots: [Slot] = []
        var firstFree: Int?
    }

    init() { shards = (0..<1 << Int(Self.shardBits)).map { _ in NIOLockedValueBox(Shard()) } }

    private static func mask(_ bits: UInt64) -> UInt64 { 1 << bits - 1 }

    private static func shard(_ number: UInt64) -> Int { Int(number & mask(shardBits)) }

    /// The slot that a number names, while it is the number of what is there.
    private static func slot(_ number: UInt64, in shard: Shard) -> Int? {
        let slot = Int(number >> shardBits & mask(slotBits))
        let uses = number >> (shardBits + slotBits) & mask(useBits)
        guard slot < shard.slots.count, shard.slots[slot].uses == uses else { return nil }
        return shard.slots[slot].element == nil ? nil : slot
    }

    /// The number for `element`, which is kept until ``remove(_:)``. - Throws: ENFILE when 16 million are open.
    ///
    /// - Parameter node: what is open: different ones are hardly ever in each other's way.
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

    /// What is open under a number from the kernel. - Throws: ESTALE for a number that this table did not give out, or that
    /// is closed.
    func find(_ number: UInt64) throws(Errno) -> Element {
        let found = shards[Self.shard(number)].withLockedValue { shard in
            Self.slot(number, in: shard).flatMap { shard.slots[$0].element }
        }
        guard let found else { throw Errno(rawValue: ESTALE) }
        return found
    }

    /// Takes out what is open under a number; nil when there is nothing.
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

/// How something was opened, as far as whoever opens it again has to know: part of its number.
struct OpenMode: OptionSet, Sendable {
    let rawValue: UInt8

    /// The two lowest bits are open(2)'s access mode.
    static let synchronousData = OpenMode(rawValue: 1 << 2)
    static let synchronous = OpenMode(rawValue: 1 << 3)
    static let keepsAccessTime = OpenMode(rawValue: 1 << 4)
    /// The lower file is append-only.
    static let appends = OpenMode(rawValue: 1 << 5)
    /// Reads and writes come to the daemon; otherwise the kernel reads and writes the lower file.
    static let cached = OpenMode(rawValue: 1 << 6)
    static let directory = OpenMode(rawValue: 1 << 7)
}
