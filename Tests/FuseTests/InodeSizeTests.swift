import Glibc
import HSMStore
import HSMSystem
import Testing

@testable import HSMFuse

/// There may be millions of them: the kernel decides how many it knows.
@Suite struct InodeSizeTests {
    private func handle(_ number: Int) throws -> FileHandle {
        let bytes = withUnsafeBytes(of: (UInt64(number), UInt64(number))) { Array($0) }
        return try #require(FileHandle(type: 1, bytes: bytes))
    }

    /// Bytes that malloc(3) has given out at `object`, with its own word.
    private func size(of object: AnyObject) throws -> Int {
        typealias Size = @convention(c) (UnsafeMutableRawPointer) -> Int
        let symbol = try #require(dlsym(nil, "malloc_usable_size"))
        return unsafeBitCast(symbol, to: Size.self)(Unmanaged.passUnretained(object).toOpaque()) + 8
    }

    @Test("A known inode of a file that is not open takes at most 304 bytes, beside its places in the table")
    func size() throws {
        let inode = Inode(
            handle: try handle(1), id: NodeID(number: 2, generation: 3), type: S_IFREG, path: nil, residence: .local)
        let size = try size(of: inode)
        #expect(size <= 304, "\(MemoryLayout<Inode.State>.size) bytes of state")
    }
}
