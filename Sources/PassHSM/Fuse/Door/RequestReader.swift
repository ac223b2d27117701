import Glibc
import HSMSystem

/// Reads a request's bytes from front to back. Checks each size against what is there.
struct RequestReader {
    private var rest: UnsafeRawBufferPointer

    init(_ body: UnsafeRawBufferPointer) { rest = body }

    /// A structure of the kernel. Throws EIO when the request is shorter.
    mutating func next<Value: BitwiseCopyable>(_ type: Value.Type) throws(Errno) -> Value {
        try data(MemoryLayout<Value>.size).loadUnaligned(as: type)
    }

    mutating func data(_ count: Int) throws(Errno) -> UnsafeRawBufferPointer {
        guard count <= rest.count else { throw Errno(rawValue: EIO) }
        defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
        return UnsafeRawBufferPointer(rebasing: rest[..<count])
    }

    /// Text up to its zero byte. Throws EIO when there is no zero byte.
    mutating func name() throws(Errno) -> Name {
        guard let start = rest.baseAddress, let end = memchr(start, 0, rest.count) else {
            throw Errno(rawValue: EIO)
        }
        _ = try data(UnsafeRawPointer(end) - start + 1)
        return start.assumingMemoryBound(to: CChar.self)
    }

    /// An offset or a length. Throws EINVAL for one that no file can have.
    static func size(_ number: UInt64) throws(Errno) -> Int {
        guard let size = Int(exactly: number) else { throw Errno(rawValue: EINVAL) }
        return size
    }
}
