import Foundation
import Glibc
import HSMSystem
import Testing

/// The two ways by which the kernel tells of accesses.
enum FrontEnd: String, CaseIterable, CustomTestStringConvertible {
    case fuse, fanotify

    var testDescription: String { rawValue }
    var arguments: [String] { ["--frontend", rawValue] }
}

extension MountTests {
    /// What a user of a mount sees is the same with both front ends: one table, one set of assertions.
    @Suite struct FrontEnds {}
}

/// One row of the table: what the source holds, and what is done with the mount of it.
struct Scenario: CustomTestStringConvertible, Sendable {
    let name: String
    var mounting: [String] = []
    var prepare: @Sendable (Mirror) throws -> Void = { mirror in
        for (index, name) in ["a", "b", "c"].enumerated() {
            try Pattern.write(mirror.remote(name), size: Scenario.size + index, seed: index)
        }
        try shell("touch -d 2020-01-01 a b c", in: mirror.source)
    }
    let body: @Sendable (Mirror, FrontEnd) throws -> Void

    var testDescription: String { name }

    static let size = (3 << 20) + 100

    /// The content of `a`, `b` and `c`.
    static func content(_ index: Int) -> [UInt8] { Pattern.bytes(0..<size + index, seed: index) }

    func run(_ frontEnd: FrontEnd) throws {
        try withMirror(mounting: nil) { mirror throws in
            try prepare(mirror)
        } _: { mirror throws in
            try mirror.start(frontEnd.arguments + mounting)
            try body(mirror, frontEnd)
        }
    }
}

extension Mirror {
    func content(_ name: String) throws -> [UInt8] { try File.bytes(at(name)) }

    /// Waits until what is known of a file is on the disk, and says so.
    func await(_ name: String, _ what: String, _ condition: (FileState) -> Bool) throws {
        try until("\(name): \(what)", seconds: 10) { condition(try state(name)) }
    }

    func restart(_ frontEnd: FrontEnd, _ arguments: [String] = []) throws {
        try stop()
        try start(frontEnd.arguments + arguments)
    }
}
