import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// strace(1) lets one system call of one fill fail, or kills the daemon at it: each of them in turn.
    @Suite struct Injection {
        private static let calls = [
            "openat", "open_by_handle_at", "name_to_handle_at", "newfstatat", "getxattr", "fgetxattr", "fsetxattr",
            "pread64", "pwrite64", "fdatasync", "fsync", "utimensat", "unlinkat", "ftruncate",
        ]
        private static let faults =
            Machine.isLong
            ? ["error=EIO", "error=ENOSPC", "error=EINTR", "error=ENOMEM", "signal=SIGKILL"]
            : ["error=EIO", "signal=SIGKILL"]
        private static let size = 300_000

        @Test(
            "Whichever system call of a fill fails, or is the daemon's last: no byte is wrong, then or after a restart")
        func everyCall() throws {
            try withMirror(mounting: nil) { _ in
            } _: { mirror throws in
                var files = 0
                func next() throws -> String {
                    files += 1
                    try Pattern.write(mirror.remote("f\(files)"), size: Self.size, seed: files)
                    try mirror.importSource()
                    return "f\(files)"
                }
                let whole = try fill(next(), seed: files, mirror, nil)
                let places = Self.places(in: whole)
                #expect(Set(places.map(\.call)).isSuperset(of: ["pwrite64", "fsetxattr", "fdatasync", "utimensat"]))
                var hits = 0
                var tried = 0
                for place in places {
                    for (index, fault) in Self.faults.enumerated() {
                        // CI's form takes them in turn.
                        if !Machine.isLong && (tried + index) % 2 == 0 { continue }
                        let injection = "\(place.call):\(fault):when=\(place.index)"
                        let trace = try fill(next(), seed: files, mirror, injection)
                        if trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL") { hits += 1 }
                    }
                    tried += 1
                }
                print("\(places.count) places, \(hits) faults came")
                // Which thread does what differs from time to time.
                #expect(hits >= places.count / 2)
            }
        }

        private struct Place: Hashable {
            let call: String
            /// Of this thread, from 1.
            let index: Int
        }

        /// Every call of the trace, by the threads' own counts.
        private static func places(in trace: String) -> [Place] {
            var counts: [Substring: [String: Int]] = [:]
            var result = Set<Place>()
            for line in trace.split(separator: "\n") {
                let fields = line.split(separator: " ", omittingEmptySubsequences: true)
                guard fields.count > 1, let call = calls.first(where: { fields[1].hasPrefix($0 + "(") }) else {
                    continue
                }
                counts[fields[0], default: [:]][call, default: 0] += 1
                result.insert(Place(call: call, index: counts[fields[0]]?[call] ?? 0))
            }
            return result.sorted { ($0.call, $0.index) < ($1.call, $1.index) }
        }

        /// Fills a file, and checks what is there of it before and after a restart: the trace of what the daemon did.
        private func fill(_ name: String, seed: Int, _ mirror: Mirror, _ injection: String?) throws -> String {
            let expected = Pattern.bytes(0..<Self.size, seed: seed)
            try mirror.start(["--fill", "read"])
            let path = mirror.scratch.path + "/trace"
            unlink(path)
            let filter = "trace=" + Self.calls.joined(separator: ",")
            let inject = injection.map { ["-e", "inject=" + $0] } ?? []
            let tracer = try Child(
                ["strace", "-f", "-q", "-p", "\(mirror.pid)", "-e", filter, "-o", path] + inject)
            try until("strace to see every thread") { try isTraced(mirror.pid) }
            let what = "\(injection ?? "nothing") of \(name)"
            for range in [100_000..<110_000, 0..<Self.size] {
                // An error is right; other bytes are not.
                if let bytes = try? File.bytes(mirror.at(name), range) {
                    #expect(bytes == Array(expected[range]), "\(what): \(range) is wrong")
                }
            }
            // The commit, of which a fault may leave nothing to wait for.
            if injection == nil { try until("the commit") { try mirror.state(name).state == "dual" } }
            usleep(250_000)
            tracer.kill(SIGTERM)
            _ = try tracer.wait(seconds: 10)
            try mirror.killDaemon()
            for range in try mirror.state(name, inLower: true).ranges {
                let range = range[0]..<range[1]
                let bytes = try File.bytes(mirror.tree + "/" + name, range)
                #expect(bytes == Array(expected[range]), "\(what): \(range) is called present")
            }
            try mirror.start()
            #expect(try File.bytes(mirror.at(name)) == expected, "\(what): after a restart")
            try mirror.stop()
            return try String(contentsOfFile: path, encoding: .utf8)
        }

        private func isTraced(_ pid: pid_t) throws -> Bool {
            let tasks = "/proc/\(pid)/task"
            return try FileManager.default.contentsOfDirectory(atPath: tasks).allSatisfy { task in
                let status = (try? String(contentsOfFile: "\(tasks)/\(task)/status", encoding: .utf8)) ?? ""
                return !status.contains("TracerPid:\t0\n")
            }
        }
    }
}
