import CLinux
import Glibc
import HSMSystem

/// The events that were read and are not answered yet. The table's memory outlives the daemon: the next daemon learns
/// from it which events to answer.
///
/// The table has a slot for each number that an event can have. The thread that read an event writes its slot, and the
/// thread that answered the event frees it. So no two threads write the same slot at a time.
package final class EventTable: @unchecked Sendable {
    // Sendable: see above; the memory stays mapped for as long as this lives.
    package let memory: Descriptor
    /// Numbers are below this.
    package let count: Int
    private let base: UnsafeMutableRawPointer

    /// An event as the table keeps it, without its descriptor.
    package struct Entry: Equatable, Sendable {
        package let number: Int32
        package let thread: Int32
        /// Nil: an open.
        package let range: Range<Int>?
        package let file: FileHandle

        package init(number: Int32, thread: Int32, range: Range<Int>?, file: FileHandle) {
            self.number = number
            self.thread = thread
            self.range = range
            self.file = file
        }
    }

    private static let slotSize = 96
    private enum Offset {
        static let state = 0
        static let thread = 4
        static let isAccess = 8
        static let handleSize = 12
        static let start = 16
        static let end = 24
        static let handleType = 32
        static let handle = 40
    }
    private static let largestHandle = slotSize - Offset.handle

    /// Makes a new table, for numbers below `count`.
    package init(count: Int) throws(Errno) {
        memory = Descriptor(owning: try check { passhsm_memfd("passhsm-events") })
        self.count = count
        try memory.truncate(to: count * Self.slotSize)
        base = try Self.map(memory, count * Self.slotSize)
    }

    /// Maps the table of another process.
    package init(_ memory: Descriptor) throws(Errno) {
        self.memory = memory
        let size = Int(try memory.stat().st_size)
        count = size / Self.slotSize
        if count == 0 { throw Errno(rawValue: EINVAL) }
        base = try Self.map(memory, size)
    }

    deinit { munmap(base, count * Self.slotSize) }

    private static func map(_ memory: Descriptor, _ size: Int) throws(Errno) -> UnsafeMutableRawPointer {
        let address = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.raw, 0)
        guard let address, address != MAP_FAILED else { throw Errno(rawValue: errno) }
        return address
    }

    private func slot(_ number: Int32) -> UnsafeMutableRawPointer? {
        number >= 0 && Int(number) < count ? base + Int(number) * Self.slotSize : nil
    }

    /// Enters an event that was just read. An event that does not fit is denied when the daemon ends, by the next
    /// daemon or the guardian.
    package func enter(_ entry: Entry) {
        let handle = entry.file.bytes
        guard let slot = slot(entry.number), handle.count <= Self.largestHandle else { return }
        slot.storeBytes(of: entry.thread, toByteOffset: Offset.thread, as: Int32.self)
        slot.storeBytes(of: entry.range == nil ? 0 : 1, toByteOffset: Offset.isAccess, as: UInt32.self)
        slot.storeBytes(of: UInt32(handle.count), toByteOffset: Offset.handleSize, as: UInt32.self)
        slot.storeBytes(of: entry.range?.lowerBound ?? 0, toByteOffset: Offset.start, as: Int.self)
        slot.storeBytes(of: entry.range?.upperBound ?? 0, toByteOffset: Offset.end, as: Int.self)
        slot.storeBytes(of: entry.file.type, toByteOffset: Offset.handleType, as: Int32.self)
        UnsafeMutableRawBufferPointer(start: slot + Offset.handle, count: handle.count).copyBytes(from: handle)
        passhsm_store_release(slot.assumingMemoryBound(to: UInt32.self), 1)
    }

    /// The event of this number was answered.
    package func remove(_ number: Int32) {
        guard let slot = slot(number) else { return }
        passhsm_store_release(slot.assumingMemoryBound(to: UInt32.self), 0)
    }

    /// The entered events. To be used only while no other thread or process uses the table.
    package var entries: [Entry] {
        (0..<Int32(clamping: count)).compactMap { number in
            guard let slot = slot(number), slot.load(fromByteOffset: Offset.state, as: UInt32.self) == 1 else {
                return nil
            }
            let size = Int(slot.load(fromByteOffset: Offset.handleSize, as: UInt32.self))
            let (start, end) = (
                slot.load(fromByteOffset: Offset.start, as: Int.self),
                slot.load(fromByteOffset: Offset.end, as: Int.self)
            )
            let type = slot.load(fromByteOffset: Offset.handleType, as: Int32.self)
            guard size <= Self.largestHandle, start >= 0, start <= end else { return nil }
            let bytes = UnsafeRawBufferPointer(start: slot + Offset.handle, count: size)
            guard let handle = FileHandle(type: type, bytes: bytes) else { return nil }
            let isAccess = slot.load(fromByteOffset: Offset.isAccess, as: UInt32.self) == 1
            return Entry(
                number: number, thread: slot.load(fromByteOffset: Offset.thread, as: Int32.self),
                range: isAccess ? start..<end : nil, file: handle)
        }
    }
}
