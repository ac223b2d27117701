import Synchronization

/// Buffers for reads on their way to the kernel. They are used again, because the kernel would clear every page of new
/// memory of this size. Safe on every thread.
final class ReadBuffers: Sendable {
    /// Bytes. The kernel sends no larger READ (FUSE_MAX_MAX_PAGES).
    static let size = 1 << 20
    private static let alignment = 4096
    /// How many unused buffers are kept.
    private static let maxIdle = 8

    private struct Idle: @unchecked Sendable {
        // Sendable: a buffer is either used by one read or unused and in here.
        var buffers: [UnsafeMutableRawBufferPointer] = []
    }

    /// A leaf lock.
    private let idle = Mutex(Idle())

    deinit { for buffer in idle.withLock({ $0.buffers }) { buffer.deallocate() } }

    /// A buffer of at least `count` bytes, to be given to ``putBack(_:)``.
    func take(_ count: Int) -> UnsafeMutableRawBufferPointer {
        // The processor's cache still has the buffer that was put back last.
        if count <= Self.size, let known = idle.withLock({ $0.buffers.popLast() }) { return known }
        return .allocate(byteCount: max(count, Self.size), alignment: Self.alignment)
    }

    func putBack(_ buffer: UnsafeMutableRawBufferPointer) {
        let isKept = idle.withLock { idle in
            guard buffer.count == Self.size, idle.buffers.count < Self.maxIdle else { return false }
            idle.buffers.append(buffer)
            return true
        }
        if !isKept { buffer.deallocate() }
    }
}
