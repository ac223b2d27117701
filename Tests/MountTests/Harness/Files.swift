import Foundation
import Glibc
import HSMSystem
import Testing

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
