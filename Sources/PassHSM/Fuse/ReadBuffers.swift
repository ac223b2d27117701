import Synchronization

/// Memory that reads go through on their way to the kernel, used again: new memory of this size comes from the kernel each
/// time, which clears every page of it. May be used by any thread.
final class ReadBuffers: Sendable {
    /// Bytes; no read of the kernel is larger (FUSE_MAX_MAX_PAGES).
    static let size = 1 << 20
    private static let alignment = 4096
    /// Kept while nobody uses them.
    private static let mostIdle = 8

    private struct Idle: @unchecked Sendable {
        // Sendable: a buffer is in the hands of one read at a time, or of nobody and in here.
        var buffers: [UnsafeMutableRawBufferPointer] = []
    }

    /// A leaf lock.
    private let idle = Mutex(Idle())

    deinit { for buffer in idle.withLock({ $0.buffers }) { buffer.deallocate() } }

    /// A buffer of at least `count` bytes, to be given to ``putBack(_:)``.
    func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        // The last one is the one that the processor still knows.
        if count <= Self.size, let known = idle.withLock({ $0.buffers.popLast() }) { return known }
        return .allocate(byteCount: max(count, Self.size), alignment: Self.alignment)
    }

    func putBack(_ buffer: UnsafeMutableRawBufferPointer) {
        let isKept = idle.withLock { idle in
            guard buffer.count == Self.size, idle.buffers.count < Self.mostIdle else { return false }
            idle.buffers.append(buffer)
            return true
        }
        if !isKept { buffer.deallocate() }
    }
}
