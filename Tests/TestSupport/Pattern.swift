import Glibc
import HSMSystem

/// Content that tells from every byte where it belongs, and has no zeros in it: a hole shows wherever it is.
package enum Pattern {
    /// A prime, so that granules, pages and blocks are never a whole number of periods apart.
    private static let period = 65_521

    /// Pseudo-random, so that no two places look alike.
    private static let table: [UInt8] = {
        var state: UInt32 = 1
        return (0..<period).map { _ in
            state = state &* 1_664_525 &+ 1_013_904_223
            return UInt8(state >> 24) | 1
        }
    }()

    package static func byte(at offset: Int, seed: Int = 0) -> UInt8 { table[(offset + seed * 7919) % period] }

    package static func bytes(_ range: Range<Int>, seed: Int = 0) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(range.count)
        var place = (range.lowerBound + seed * 7919) % period
        while result.count < range.count {
            let end = min(period, place + range.count - result.count)
            result += table[place..<end]
            place = 0
        }
        return result
    }

    /// Makes a file of `size` bytes.
    package static func write(_ path: String, size: Int, seed: Int = 0) throws {
        let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        var offset = 0
        while offset < size {
            let end = min(size, offset + 1 << 20)
            try file.put(bytes(offset..<end, seed: seed), at: offset)
            offset = end
        }
    }
}
