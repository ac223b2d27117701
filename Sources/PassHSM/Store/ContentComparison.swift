import Glibc
import HSMCore
import HSMSystem

/// Compares a lower file with its remote object. Used by one task.
package struct ContentComparison {
    package enum Outcome: Sendable {
        /// All bytes are equal; their checksum.
        case same(UInt32)
        /// The range from the first byte that differs to the last one.
        case differs(Range<Int>)
        /// The remote has another version, or no object.
        case other
        case failed(String)
    }

    private let lower: Descriptor
    private var offset = 0
    private var checksum: UInt32 = 0
    private var difference: Range<Int>?
    private var own: [UInt8] = []

    /// - Parameter lower: open for reading.
    package init(_ lower: Descriptor) { self.lower = lower }

    /// Compares. Must be called once only. Blocks in reads of the lower file.
    package mutating func run(_ object: RemoteObject, _ remote: any RemoteStore) async -> Outcome {
        do throws(FillError) {
            while offset < object.size {
                let end = min(object.size, offset + remote.fetchUnit)
                let range = offset..<end
                var part = self
                try await remote.read(object, range: range) { bytes throws(FillError) in try part.take(bytes) }
                self = part
                guard offset == end else { return .failed("the remote has sent \(offset - range.lowerBound) bytes") }
            }
        } catch {
            return [.remoteChanged, .remoteGone].contains(error.reason) ? .other : .failed(error.cause)
        }
        return difference.map(Outcome.differs) ?? .same(checksum)
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer) throws(FillError) {
        if own.count < bytes.count { own = [UInt8](repeating: 0, count: bytes.count) }
        let count: Int
        do throws(Errno) {
            let (file, offset) = (lower, offset)
            count = try own.withMutableBytes { buffer throws(Errno) in
                try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<bytes.count]), at: offset)
            }
        } catch { throw FillError(lowerErrno: error, "reading the lower file") }
        own.withUnsafeBytes { mine in
            checksum = CRC32C.of(UnsafeRawBufferPointer(rebasing: mine[..<count]), continuing: checksum)
            guard let a = mine.baseAddress, let b = bytes.baseAddress else { return }
            if count == bytes.count && memcmp(a, b, count) == 0 { return }
            let wrong = (0..<bytes.count).filter { $0 >= count || mine[$0] != bytes[$0] }
            guard let first = wrong.first, let last = wrong.last else { return }
            difference = (difference?.lowerBound ?? offset + first)..<offset + last + 1
        }
        offset += bytes.count
    }
}
