import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// Content for a lower file, kept where no program can see it until the whole was found right.
///
/// It is in an unnamed file of `.passhsm/tmp`, which disappears with this object or with the daemon. Safe on every
/// thread.
final class Staging: Sendable {
    private struct Content {
        var granules = GranuleSet()
        var checksums: [Int: UInt32] = [:]
    }

    private let file: Descriptor
    private let layout: GranuleLayout
    /// A leaf lock.
    private let content = Mutex(Content())

    /// - Throws: what open(2) with O_TMPFILE throws.
    init(in folder: Descriptor, _ layout: GranuleLayout) throws(Errno) {
        file = try folder.makeUnnamedFile(mode: 0o600)
        // Zeros at the end are not written.
        try file.truncate(to: layout.limit)
        self.layout = layout
    }

    /// Writes whole granules; the last one may be cut off at the limit.
    func write(_ bytes: UnsafeRawBufferPointer, _ checksums: [Int: UInt32], at offset: Int) throws(Errno) {
        try OrdinaryUser.write { () throws(Errno) in
            try file.writeKeepingHoles(bytes, at: offset, unit: layout.granuleSize)
        }
        content.withLock { content in
            content.granules.insert(layout.granules(touching: offset..<offset + bytes.count))
            content.checksums.merge(checksums) { _, new in new }
        }
    }

    /// Reads the bytes that `lower` would have if everything here were moved there; as ``Descriptor/read(into:at:)``.
    func read(over lower: Descriptor, into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(Errno) -> Int {
        let granules = content.withLock(\.granules)
        var done = 0
        while done < buffer.count {
            let rest = layout.granules(touching: offset + done..<offset + buffer.count)
            let staged = granules.firstRun(in: rest)
            let isStaged = staged?.lowerBound == rest.lowerBound
            let end = isStaged ? staged?.upperBound : staged?.lowerBound
            let part = layout.bytes(of: rest.lowerBound..<(end ?? rest.upperBound)).clamped(
                to: offset + done..<offset + buffer.count)
            // Beyond the limit there is nothing.
            if part.isEmpty { break }
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + part.count])
            let count = try (isStaged ? file : lower).read(into: piece, at: offset + done)
            done += count
            if count < part.count { break }
        }
        return done
    }

    /// Moves everything into `lower`, and returns the checksums of the granules that it moved. After an error some of
    /// the content may be in `lower`, and nothing is here any more.
    func move(into lower: Descriptor) throws(Errno) -> [Int: UInt32] {
        let content = content.withLock { content in
            defer { content = Content() }
            return content
        }
        try OrdinaryUser.write { () throws(Errno) in
            for run in content.granules.runs() { try lower.takeContent(layout.bytes(of: run), from: file) }
        }
        return content.checksums
    }
}
