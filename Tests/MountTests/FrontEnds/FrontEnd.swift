import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

/// The two ways by which the kernel tells of accesses.
enum FrontEnd: String, CaseIterable, CustomTestStringConvertible {
    case fuse, fanotify

    var testDescription: String { rawValue }
    var arguments: [String] { ["--frontend", rawValue] + (self == .fanotify ? ["--allow-holes"] : []) }
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
    /// The lower directory is the top of such a file system of its own; nil: a folder of the machine's.
    var disk: Disk.Kind?
    let body: @Sendable (Mirror, FrontEnd) throws -> Void

    var testDescription: String { mounting.isEmpty ? name : "\(name) (\(mounting.joined(separator: " ")))" }

    static let size = (3 << 20) + 100

    /// The content of `a`, `b` and `c`.
    static func content(_ index: Int) -> [UInt8] { Pattern.bytes(0..<size + index, seed: index) }

    /// - Parameter kind: see ``disk``.
    func perform(by frontEnd: FrontEnd, on kind: Disk.Kind? = nil) throws {
        if let kind = kind ?? disk {
            return try withDiskMirror(kind, prepare: prepare) { mirror throws in try perform(by: frontEnd, with: mirror)
            }
        }
        try withMirror(mounting: nil) { mirror throws in
            try prepare(mirror)
        } _: { mirror throws in
            try perform(by: frontEnd, with: mirror)
        }
    }

    private func perform(by frontEnd: FrontEnd, with mirror: Mirror) throws {
        try mirror.start(frontEnd.arguments + mounting)
        try body(mirror, frontEnd)
        if frontEnd == .fanotify, mirror.pid != 0 { try mirror.expectOneAnswerEach() }
    }
}

/// As ``withMirror(apart:mounting:limit:prepare:_:)``, of a lower directory that is the top of a file system of its own, and
/// a mount beside it, which `body` makes.
func withDiskMirror(
    _ kind: Disk.Kind, prepare: (Mirror) throws -> Void, _ body: (Mirror) throws -> Void
) throws {
    try withScratch { scratch throws in
        let disk = try Disk(kind, at: scratch.path + "/lower")
        defer { disk.remove() }
        try Mirror(scratch, apart: true).live(mounting: nil, prepare: prepare, body)
        try disk.unmount()
    }
}

extension Mirror {
    func content(_ name: String) throws -> [UInt8] { try File.bytes(at(name)) }

    /// Waits until what is known of a file is on the disk, and says so.
    func await(_ name: String, _ what: String, _ condition: (FileState) -> Bool) throws {
        try until("\(name): \(what)", seconds: 10) { condition(try state(name)) }
    }

    /// Requests by kind, or events, of `status`.
    func requests() throws -> [String: Int] { try status().requests }

    /// Every event that has come was answered, and exactly once.
    func expectOneAnswerEach() throws {
        try until("an answer to every event", seconds: 10) {
            let counts = try requests()
            func sum(_ names: String...) -> Int { names.reduce(0) { $0 + (counts[$1] ?? 0) } }
            #expect(counts["answeredTwice"] == 0 && counts["unanswered"] == 0)
            return sum("open", "access", "inherited") == sum("allowed", "denied", "abandoned")
        }
    }

    func restart(_ frontEnd: FrontEnd, _ arguments: [String] = []) throws {
        try stop()
        try start(frontEnd.arguments + arguments)
    }
}
