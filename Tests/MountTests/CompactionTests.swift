import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// An import that gets rid of what the tables of remote objects need no more fails at each step, or is its process's last.
    @Suite struct Compaction {
        private static let points = [
            "compact.begin", "compact.begun", "objects.sync", "records.set", "records.set:150", "compact.flush",
            "compact.flushed", "compact.synced", "compact.remove", "compact.removed",
        ]
        /// More than are written together.
        private static let files = 260

        private static func prepare(_ mirror: Mirror) throws {
            for index in 0..<files { try Pattern.write(mirror.remote("file\(index)"), size: 5000 + index, seed: index) }
            try shell("touch -d 2000-01-01 *", in: mirror.source)
        }

        /// Gives the files further versions, all but the one that stays complete.
        private func makeGarbage(_ mirror: Mirror) throws {
            for _ in 0..<2 {
                try shell("touch $(ls | grep -v 'file1$')", in: mirror.source)
                try mirror.importSource()
            }
        }

        private func objects(_ mirror: Mirror) throws -> [String: Int] {
            let folder = mirror.lower + "/.passhsm/objects"
            var result: [String: Int] = [:]
            for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
                result[name] = try Int(File.stat("\(folder)/\(name)").st_size)
            }
            return result
        }

        /// Each file has its record and its object: its content is there, or comes.
        private func expectAll(_ mirror: Mirror, _ when: String) throws {
            #expect(try passhsm("verify", mirror.lower).out.contains("nothing wrong"), "\(when)")
            try mirror.start()
            #expect(try mirror.state("file1").state == "dual", "\(when)")
            #expect(try run(["diff", "-r", mirror.source, mirror.mount]).code == 0, "\(when)")
            try mirror.stop()
        }

        private func failpoint(_ point: String, _ action: String) -> [String: String] {
            let parts = point.split(separator: ":")
            let time = parts.count > 1 ? parts[1] : "1"
            return ["PASSHSM_FAILPOINT": "compact.small:on,\(parts[0]):\(action):\(time)"]
        }

        private func compact(_ mirror: Mirror, failing point: String, _ action: String) throws -> Output {
            try run(
                [Machine.program, "import", mirror.location, mirror.lower], environment: failpoint(point, action),
                seconds: 120)
        }

        @Test("Whatever step fails, or is the last: every record has its object, and the next import does it")
        func everyStep() throws {
            try withMirror(mounting: nil, prepare: Self.prepare) { mirror throws in
                try mirror.start()
                _ = try File.bytes(mirror.at("file1"))
                try mirror.stop()
                var size = 0
                for (point, action) in Self.points.flatMap({ [($0, "kill"), ($0, "EIO")] }) {
                    try makeGarbage(mirror)
                    let before = try objects(mirror)
                    let output = try compact(mirror, failing: point, action)
                    if action == "kill" {
                        #expect(output.code != 0, "\(point)")
                    } else {
                        #expect(output.code == 0 && output.err.contains("stay as they are"), "\(point): \(output)")
                    }
                    let isRemoved = try !before.allSatisfy { try objects(mirror)[$0.key] == $0.value }
                    #expect(isRemoved == (point == "compact.removed"), "\(point)")
                    try expectAll(mirror, "\(point), \(action)")
                    #expect(try compact(mirror, failing: "none", "on").code == 0)
                    let after = try objects(mirror)
                    #expect(after.count == 1, "\(after)")
                    // As if it had been done at once.
                    size = max(size, after.values.reduce(0, +))
                    #expect(after.values.reduce(0, +) == size, "\(point)")
                }
                try expectAll(mirror, "at the end")
            }
        }

        @Test(
            "After a power cut at any step every record has its object",
            arguments: Disk.Kind.withShutdown)
        func powerCut(kind: Disk.Kind) throws {
            try withScratch { scratch in
                let disk = try Disk(kind, at: scratch.path + "/lower")
                defer { disk.remove() }
                let mirror = try Mirror(scratch, apart: true)
                defer { _ = mirror.cleanUp() }
                try Self.prepare(mirror)
                try mirror.importSource()
                try mirror.start()
                _ = try File.bytes(mirror.at("file1"))
                try mirror.stop()
                for point in [
                    "compact.begun", "records.set:150", "compact.flushed", "compact.synced", "compact.removed",
                ] {
                    try makeGarbage(mirror)
                    try shell("sync -f \"$1\"", [mirror.lower])
                    let before = try objects(mirror)
                    let child = try Child(
                        [Machine.program, "import", mirror.location, mirror.lower],
                        environment: failpoint(point, "hang"))
                    defer { child.kill(SIGKILL) }
                    try until("the step") { try objects(mirror).keys != before.keys }
                    try until("the failpoint") { hangs(child.pid) }
                    // The journal is written, with what it holds of records and names.
                    try shell(
                        "dd if=/dev/zero of=\"$1/.passhsm/any\" bs=1 count=1 conv=fsync status=none", [mirror.lower])
                    try disk.cutPower()
                    child.kill(SIGKILL)
                    try disk.unmount()
                    try disk.mount()
                    try expectAll(mirror, "\(kind), \(point)")
                }
                try disk.unmount()
            }
        }
    }
}
