import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// `passhsm verify`: exit status, output, and what a mount shows afterwards.
    @Suite struct VerifyCommand {
        private struct Report: Decodable {
            struct Item: Decodable {
                let path: String
                let kind: String
                let range: [Int]?
                let outcome: String
            }

            let counts: [String: Int]
            let findings: [Item]
        }

        private static let size = 3 << 20

        /// A lower directory that is not mounted, with `clean` and `dirty` partly there.
        private func withPartial(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("clean"), size: Self.size, seed: 1)
                try Pattern.write(mirror.remote("dirty"), size: Self.size, seed: 2)
                try Pattern.write(mirror.remote("other"), size: 100_000, seed: 3)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("other"))
                _ = try File.bytes(mirror.at("clean"), 0..<1)
                try File.open(mirror.at("dirty"), O_WRONLY).put([1, 2, 3], at: 1_500_000)
                try mirror.stop()
                try body(mirror)
            }
        }

        private func verify(_ mirror: Mirror, _ arguments: String..., code: Int32) throws -> Report {
            let output = try run([Machine.program, "verify", "--json", mirror.lower] + arguments)
            #expect(output.code == code, "\(output)")
            return try JSONDecoder().decode(Report.self, from: Data(output.out.utf8))
        }

        private func flip(_ path: String, at offset: Int) throws {
            let file = try File.open(path, O_RDWR)
            try file.put([try #require(file.bytes(offset..<offset + 1).first) ^ 1], at: offset)
        }

        @Test("Nothing wrong: 0; a changed byte: 4; dropped: 1; then it is fetched again")
        func clean() throws {
            try withPartial { mirror throws in
                let right = try verify(mirror, code: 0)
                #expect(right.findings.isEmpty && right.counts["files"] == 3)
                try flip(mirror.tree + "/clean", at: 100)
                let found = try verify(mirror, code: 4).findings
                #expect(found.map(\.path) == ["clean"] && found.map(\.range) == [[0, 65_536]])
                #expect(found.map(\.outcome) == ["found"])
                #expect(try verify(mirror, "--repair", code: 1).findings.map(\.outcome) == ["dropped"])
                #expect(try verify(mirror, code: 0).findings.isEmpty)
                try mirror.start()
                #expect(try File.sameContent(mirror.at("clean"), mirror.remote("clean")))
            }
        }

        @Test("What only a dirty file has is never dropped: 4 with --repair too, and a line says why")
        func dirty() throws {
            try withPartial { mirror throws in
                let handle = try FileHandle(of: File.open(mirror.tree + "/dirty")).name
                let map = try File.open("\(mirror.lower)/.passhsm/partial/\(handle)", O_RDWR)
                try map.put([UInt8](repeating: 0, count: 4096), at: 4096)
                #expect(try verify(mirror, "--repair", code: 4).findings.map(\.kind) == ["map"])
                let output = try passhsm("verify", "--repair", mirror.lower)
                #expect(output.code == 4)
                #expect(
                    output.out.contains("dirty: 1 written pages of the residency map are zeros; the file has local"))
                try mirror.start(["--fill", "read"])
                #expect(File.readError(mirror.at("dirty")) == EIO)
            }
        }

        @Test(
            "What a kill leaves behind is no finding: 0",
            arguments: [
                "write.known", "write.map", "write.mapped", "truncate.record", "finish.forget", "release.punched",
                "dirty.record",
            ])
        func killed(point: String) throws {
            try withPartial { mirror throws in
                try mirror.start(["--fill", "read"], failpoints: "\(point):kill")
                // Present granules of the one file and of the other.
                for (name, offset) in [("clean", 100), ("dirty", 1_500_010)] where isRunning(mirror.pid) {
                    try? File.open(mirror.at(name), O_WRONLY).put([9, 9, 9], at: offset)
                }
                // Absent ones, whole.
                if isRunning(mirror.pid) {
                    let bytes = [UInt8](repeating: 9, count: 65_536)
                    try? File.open(mirror.at("clean"), O_WRONLY).put(bytes, at: 20 * 65_536)
                }
                if isRunning(mirror.pid) { truncate(mirror.at("dirty"), 1_000_000) }
                if isRunning(mirror.pid) { _ = try? File.bytes(mirror.at("clean")) }
                // A file is released once what it has is on disk.
                try? until("the commits", seconds: 5) { try mirror.status().incompleteFiles == 0 }
                if isRunning(mirror.pid) { _ = try passhsm("release", mirror.at("other")) }
                // The daemon's sockets close before it has ended, so that the command can return first.
                try until("the kill at \(point)") { !isRunning(mirror.pid) }
                try mirror.killDaemon()
                #expect(try verify(mirror, code: 0).findings.isEmpty)
            }
        }

        @Test("A mounted directory: 8 with one line that says where; called wrongly: 16")
        func refused() throws {
            try withMirror(apart: true) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 10)
            } _: { mirror throws in
                let busy = try passhsm("verify", mirror.lower)
                #expect(busy.code == 8 && busy.out.isEmpty)
                #expect(busy.err.split(separator: "\n").count == 1 && busy.err.contains("mounted on \(mirror.mount)"))
                let missing = try passhsm("verify", mirror.lower + "/nowhere")
                #expect(missing.code == 8 && missing.err.split(separator: "\n").count == 1)
                #expect(try passhsm("verify").code == 16)
                #expect(try passhsm("verify", "--nonsense", mirror.lower).code == 16)
                #expect(try passhsm("verify", "--help").code == 0)
            }
        }
    }
}
