import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// The daemon crashes or gets an error at each step of a fill, a completion, a write, a truncation and a release.
    @Suite struct Failpoints {
        private static let points = [
            "fill.write", "fill.written", "commit.sync", "commit.synced", "commit.map", "commit.record",
            "commit.recorded", "finish.times", "finish.record", "finish.sync", "finish.forget", "dirty.map",
            "dirty.record", "dirty.sync", "dirty.synced", "write.known", "write.map", "write.mapped", "truncate.cut",
            "truncate.record", "truncate.sync", "mark.record", "mark.sync", "release.record", "release.sync",
            "release.punch", "release.punched", "release.offline", "release.offline.sync", "release.forget",
        ]
        private static let actions = Machine.isLong ? ["kill", "EIO", "ENOSPC", "EINTR"] : ["kill", "EIO"]
        private static let size = 2 << 20

        @Test(
            "Whatever fails at whichever step: after a restart every byte is the remote's or what was written",
            arguments: points)
        func everyStep(point: String) throws {
            var hits = 0
            for action in Self.actions + (point == "fill.write" ? ["short", "ENOSPC"] : []) {
                for time in Machine.isLong ? [1, 2, 5] : [1] {
                    if try fail(at: "\(point):\(action):\(time)") { hits += 1 }
                }
            }
            #expect(hits > 0, "\(point) is never reached")
        }

        /// Whether nothing was freed yet at a step of a release.
        private static let releaseSteps = [
            "release.record": true, "release.sync": true, "release.punch": true, "release.punched": false,
            "release.offline": false, "release.offline.sync": false,
        ]

        @Test(
            "A release that fails before it has freed anything leaves the file complete; after that it is offline",
            arguments: releaseSteps.keys.sorted(), ["EIO", "ENOSPC"])
        func release(point: String, error: String) throws {
            let isWhole = Self.releaseSteps[point] == true
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
                try Pattern.write(mirror.remote("half"), size: Self.size, seed: 1)
                try shell("touch -d 2020-01-01 *", in: mirror.source)
            } _: { mirror throws in
                try mirror.start(["--fill", "read"])
                _ = try File.bytes(mirror.at("file"))
                _ = try File.bytes(mirror.at("half"), 0..<300_000)
                try mirror.stop()
                try mirror.start(["--fill", "read"], failpoints: "\(point):\(error)")
                for name in ["file", "half"] {
                    let output = try passhsm("release", mirror.at(name))
                    #expect(output.code == 1 && output.err.contains("releasing it: "), "\(output)")
                }
                for isRestarted in [false, true] {
                    if isRestarted {
                        try mirror.stop()
                        try mirror.start(["--fill", "read"])
                    }
                    #expect(try mirror.state("file").state == (isWhole ? "dual" : "offline"))
                    #expect(try mirror.state("half").state == (isWhole ? "partial" : "offline"))
                    #expect(try File.stat(mirror.at("file")).st_mtim.tv_sec == 1_577_836_800)
                }
                if isWhole {
                    try mirror.fail(true)
                    #expect(try File.bytes(mirror.at("half"), 0..<300_000) == Pattern.bytes(0..<300_000, seed: 1))
                }
                #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<Self.size))
                try mirror.fail(false)
                #expect(try File.bytes(mirror.at("half")) == Pattern.bytes(0..<Self.size, seed: 1))
            }
        }

        private static let names = ["read", "parts", "write", "whole", "cut", "complete", "release", "half"]

        /// True when the daemon told of the failure, or is dead.
        private func fail(at failpoint: String) throws -> Bool {
            var wasHit = false
            try withMirror(mounting: nil) { mirror throws in
                for (index, name) in Self.names.enumerated() {
                    try Pattern.write(mirror.remote(name), size: Self.size + index, seed: index)
                }
                try shell("touch -d 2020-01-01 *", in: mirror.source)
            } _: { mirror throws in
                var files: [String: Ledger] = [:]
                for (index, name) in Self.names.enumerated() {
                    files[name] = Ledger(name, Pattern.bytes(0..<Self.size + index, seed: index))
                }
                // Complete before, and one in part.
                try mirror.start(["--fill", "read"])
                for name in ["complete", "release"] { _ = try File.bytes(mirror.at(name)) }
                _ = try File.bytes(mirror.at("half"), 0..<300_000)
                try mirror.stop()
                try mirror.start(["--fill", "read"], failpoints: failpoint)
                let (isCut, failed) = work(mirror, files)
                func isHit() -> Bool { failed || !isRunning(mirror.pid) || mirror.log.contains("errno") }
                // Some steps come with a commit, after the answer.
                try? until("the step", seconds: 3) { isHit() }
                wasHit = isHit()
                try mirror.killDaemon()
                try mirror.start(["--fill", "read"])
                for (name, ledger) in files {
                    let content = try File.bytes(mirror.at(name))
                    if name == "cut" {
                        let sizes = isCut ? [700_001] : [700_001, ledger.size]
                        #expect(sizes.contains(content.count), "\(failpoint): size of \(name)")
                        #expect(content[...] == ledger.expected.prefix(content.count), "\(failpoint): \(name)")
                    } else {
                        let fault = ledger.fault(in: content)
                        #expect(fault == nil, "\(failpoint): \(name) is wrong at \(fault ?? -1)")
                    }
                }
                try mirror.stop()
            }
            return wasHit
        }

        /// Reads, writes, cuts and releases, whatever fails: whether the cut was answered, and whether anything failed.
        private func work(_ mirror: Mirror, _ files: [String: Ledger]) -> (isCut: Bool, failed: Bool) {
            var (isCut, failed) = (false, false)
            func attempt(_ body: () throws -> Void) { do { try body() } catch { failed = true } }
            attempt { _ = try File.bytes(mirror.at("read")) }
            attempt { _ = try File.bytes(mirror.at("parts"), 100_000..<700_000) }
            for (name, range) in [("write", 500..<70_500), ("whole", 65_536..<262_144), ("complete", 9_000..<90_000)] {
                guard let ledger = files[name] else { continue }
                let bytes = Pattern.bytes(range, seed: 99)
                attempt {
                    let file = try File.open(mirror.at(name), O_WRONLY)
                    ledger.attempt(bytes, at: range.lowerBound)
                    try file.put(bytes, at: range.lowerBound)
                    ledger.succeeded()
                    // Only the process dies here: what was answered is there.
                    ledger.synced()
                    try file.fsync()
                }
            }
            attempt {
                let file = try File.open(mirror.at("cut"), O_WRONLY)
                try file.truncate(to: 700_001)
                isCut = true
            }
            // What is not on disk is not released. After a failure some of it never is.
            try? until("the commits", seconds: 1) { try mirror.status().incompleteFiles == 0 }
            attempt {
                let output = try passhsm("release", mirror.at("release"), mirror.at("half"), mirror.at("parts"))
                if output.code != 0 { failed = true }
            }
            return (isCut, failed)
        }
    }
}
