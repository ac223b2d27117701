import Foundation
import Glibc
import HSMSystem
import Testing

/// Content that tells from every byte where it belongs, and has no zeros in it: a hole shows wherever it is.
enum Pattern {
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

    static func byte(at offset: Int, seed: Int = 0) -> UInt8 { table[(offset + seed * 7919) % period] }

    static func bytes(_ range: Range<Int>, seed: Int = 0) -> [UInt8] {
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
    static func write(_ path: String, size: Int, seed: Int = 0) throws {
        let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        var offset = 0
        while offset < size {
            let end = min(size, offset + 1 << 20)
            try file.put(bytes(offset..<end, seed: seed), at: offset)
            offset = end
        }
    }
}

extension Descriptor {
    /// The bytes of `range`, fewer at the end of the file.
    func bytes(_ range: Range<Int>) throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: range.count)
        var failure: Errno?
        var count = 0
        result.withUnsafeMutableBytes { buffer in
            do throws(Errno) { count = try read(into: buffer, at: range.lowerBound) } catch { failure = error }
        }
        if let failure { throw failure }
        return Array(result.prefix(count))
    }

    func put(_ bytes: [UInt8], at offset: Int) throws {
        // Swift 6.3.1 crashes on a closure with a typed error for a function that throws any.
        var failure: Errno?
        bytes.withUnsafeBytes { buffer in
            do throws(Errno) { try write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

enum File {
    static func open(_ path: String, _ flags: Int32 = O_RDONLY, mode: mode_t = 0o644) throws -> Descriptor {
        try Descriptor.open(path, flags, mode: mode)
    }

    static func bytes(_ path: String, _ range: Range<Int>? = nil) throws -> [UInt8] {
        let file = try open(path)
        return try file.bytes(range ?? 0..<Int(file.stat().st_size))
    }

    static func put(_ text: String, _ path: String) throws {
        try open(path, O_WRONLY | O_CREAT | O_TRUNC).put(Array(text.utf8), at: 0)
    }

    static func stat(_ path: String) throws -> stat {
        var result = Glibc.stat()
        _ = try check { lstat(path, &result) }
        return result
    }

    /// A regular file without content, all of it a hole.
    static func sparse(_ path: String, size: Int) throws {
        try open(path, O_WRONLY | O_CREAT | O_TRUNC).truncate(to: size)
    }

    static func sameContent(_ left: String, _ right: String) throws -> Bool {
        try run(["cmp", left, right], seconds: 300).code == 0
    }

    /// The errno with which reading all of `path` fails; 0 when it does not.
    static func readError(_ path: String) -> Int32 {
        do {
            _ = try bytes(path)
            return 0
        } catch {
            return (error as? Errno)?.rawValue ?? -1
        }
    }
}

/// All mount tests run one after the other: they count what the whole machine has, and stop daemons.

@Suite(.serialized) enum MountTests {}
