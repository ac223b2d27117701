import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem
import Synchronization

/// The position at which a directory is being read: the lower directory, and the entries that were read from it but not
/// yet handed on.
struct DirectoryStream {
    private let lower: Descriptor
    private var buffer: [UInt8] = []
    private var filled = 0
    private var offset = 0
    /// The position of the entry at `offset`, as the kernel knows it.
    private(set) var position = 0

    /// The bytes of a buffer. Usual directories are read at once, and an entry with the longest name fits.
    private static let sizes = 16 << 10...64 << 10

    init(_ lower: Descriptor) { self.lower = lower }

    /// As ``OpenDirectory/entries(from:size:open:_:)``. Returns true when there are no more entries.
    mutating func entries(
        from start: Int, size: Int, _ body: (Descriptor, DirectoryReader.Entry) throws(Errno) -> Bool
    ) throws(Errno) -> Bool {
        let lower = lower
        if start != position {
            _ = try check { lseek(lower.raw, start, SEEK_SET) }
            (filled, offset, position) = (0, 0, start)
        }
        while true {
            if offset >= filled {
                if buffer.isEmpty {
                    let count = min(max(size, Self.sizes.lowerBound), Self.sizes.upperBound)
                    buffer = [UInt8](repeating: 0, count: count)
                }
                (filled, offset) = (0, 0)
                filled = try buffer.withMutableBytes { bytes throws(Errno) in
                    try DirectoryReader.fill(bytes, from: lower)
                }
                if filled == 0 { return true }
            }
            var (at, next) = (offset, position)
            let goesOn = try buffer.withBytes { bytes throws(Errno) in
                let bytes = UnsafeRawBufferPointer(rebasing: bytes[..<filled])
                while let (entry, following) = DirectoryReader.entry(in: bytes, at: at) {
                    if !(try body(lower, entry)) { return false }
                    (at, next) = (following, entry.next)
                }
                return true
            }
            (offset, position) = (goesOn ? filled : at, next)
            if !goesOn { return false }
        }
    }
}

/// The directories that were read last. Only these keep a descriptor and a buffer, however many directories are open.
final class DirectoryStreams: Sendable {
    private let limit: Int
    /// In the order of use, the last used one at the end. A leaf lock.
    private let directories = Mutex<[OpenDirectory]>([])

    init(limit: Int = 64) { self.limit = limit }

    /// Notes that `directory` has a stream and was just read or opened. The directory that was read longest ago loses
    /// its stream when there are too many.
    func use(_ directory: OpenDirectory) {
        let old = directories.withLock { all -> OpenDirectory? in
            if all.last === directory { return nil }
            if let index = all.firstIndex(where: { $0 === directory }) { all.remove(at: index) }
            all.append(directory)
            return all.count > limit ? all.removeFirst() : nil
        }
        old?.suspend()
    }

    /// Notes that `directory` was closed.
    func end(_ directory: OpenDirectory) {
        directories.withLock { all in
            if let index = all.lastIndex(where: { $0 === directory }) { all.remove(at: index) }
        }
    }
}
