import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// A user without privilege does what he can think of (`Tests/HostileUser`), while another one reads small cold files.
    /// PASSHSM_SEED repeats what he tries; `make test-hostile` goes on for an hour.
    @Suite struct HostileUser {
        private static let environment = ProcessInfo.processInfo.environment
        /// Nil: CI's short form.
        private static let longSeconds = environment["PASSHSM_HOSTILE_SECONDS"].flatMap(Double.init)
        private static let seconds = longSeconds ?? 5
        /// Of the remote.
        private static let delay = 0.1
        /// What a read may take beyond the remote's delay. In the short form a busy machine's own pauses count too.
        private static let maxSeconds = longSeconds == nil ? 15.0 : 1.0
        private static let user = 54_321
        private static let (largeSize, coldSize, coldCount) = (4 << 20, 4096, 60)

        /// What the daemon has of the machine.
        private struct Resources: CustomStringConvertible {
            let (kibibytes, threads, descriptors): (Int, Int, Int)

            init(of pid: pid_t) throws {
                let text = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
                func value(_ name: String) throws -> Int {
                    let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
                    return try #require(
                        line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) })
                }
                kibibytes = try value("VmRSS")
                threads = try value("Threads")
                descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count
            }

            /// Not much more than `before`. Debug builds, and the allocator, keep some memory for the next time.
            func isBack(to before: Resources) -> Bool {
                kibibytes <= before.kibibytes + 64 << 10 && threads <= before.threads + 48
                    && descriptors <= before.descriptors + 32
            }

            var description: String { "\(kibibytes >> 10) MiB, \(threads) threads, \(descriptors) descriptors" }
        }

        private func prepare(_ mirror: Mirror) throws {
            for folder in ["large", "small", "cold"] { mkdir(mirror.remote(folder), 0o755) }
            for index in 0..<12 {
                try Pattern.write(mirror.remote("large/\(index)"), size: Self.largeSize, seed: index)
            }
            for index in 0..<100 { try Pattern.write(mirror.remote("small/\(index)"), size: 3000, seed: index) }
            for index in 0..<Self.coldCount {
                try Pattern.write(mirror.remote("cold/\(index)"), size: Self.coldSize, seed: index)
            }
            try File.put("secret", mirror.remote("secret"))
            chmod(mirror.remote("secret"), 0o600)
        }

        /// Reads the file, which must have its content; seconds.
        private func read(_ mirror: Mirror, _ index: Int) throws -> Double {
            let start = Clock.now
            let content = try File.bytes(mirror.at("cold/\(index)"))
            let seconds = Clock.now - start
            #expect(content == Pattern.bytes(0..<Self.coldSize, seed: index), "cold/\(index)")
            return seconds
        }

        /// The worst wait beyond the remote's delay while `program` runs, and how many files were cold.
        private func readColdFiles(_ mirror: Mirror, while program: Child) throws -> (worst: Double, count: Int) {
            var (worst, count, index) = (0.0, 0, 0)
            var (lastRelease, lastTold, release) = (Clock.now, Clock.now, Child?.none)
            while program.poll() == nil {
                let seconds = try read(mirror, index % Self.coldCount)
                if seconds > Self.delay * 0.9 { count += 1 }
                if seconds - Self.delay > worst {
                    worst = seconds - Self.delay
                    if Self.longSeconds != nil { print("worst so far: \(worst) s") }
                }
                index += 1
                if index % Self.coldCount == 0 {
                    _ = try run([Machine.program, "release", "--recursive", mirror.at("cold")], seconds: 60)
                }
                // What the user fills is emptied again, so that he always has something to wait for.
                if Clock.now - lastRelease > 3, release?.poll() != nil || release == nil {
                    release = try Child([
                        Machine.program, "release", "--recursive", mirror.at("large"), mirror.at("small"),
                    ])
                    lastRelease = Clock.now
                }
                if Self.longSeconds != nil, Clock.now - lastTold > 60 {
                    print("\(count) cold reads; worst \(worst) s; \(try Resources(of: mirror.pid))")
                    lastTold = Clock.now
                }
                usleep(5000)
            }
            // It asks the remote for each file.
            release?.kill(SIGTERM)
            _ = try release?.wait(seconds: 60)
            return (worst, count)
        }

        @Test(
            "The daemon outlives a hostile user, others read in time, and what he took comes back",
            arguments: FrontEnd.allCases)
        func outlived(frontEnd: FrontEnd) throws {
            let seed = SeededRandom(for: "\(frontEnd)").seed
            try withMirror(mounting: nil, prepare: prepare) { mirror in
                try mirror.start(
                    frontEnd.arguments, remote: "latency=\(Int(Self.delay * 1000))ms", limit: Self.seconds + 200)
                mkdir(mirror.at("own"), 0o777)
                chmod(mirror.at("own"), 0o777)
                // As many at once as there will be, so that what is kept for the next time is there before.
                try shell(
                    "seq 0 99 | xargs -P 16 -I% cat small/% >/dev/null; cat large/* >/dev/null", in: mirror.mount)
                let before = try Resources(of: mirror.pid)
                let program = try Child([
                    URL(fileURLWithPath: Machine.program).deletingLastPathComponent().path + "/hostile-user",
                    mirror.mount, "\(Self.user)", "\(Self.seconds)", "\(seed)", "4",
                    Self.environment["PASSHSM_HOSTILE_WITHOUT"] ?? "",
                ])
                let (worst, count) = try readColdFiles(mirror, while: program)
                let output = try program.wait(seconds: 1)
                #expect(output.code == 0, "\(output)")
                let during = try Resources(of: mirror.pid)
                #expect(worst < Self.maxSeconds && count > 5, "\(count) cold reads, the worst \(worst) s too long")
                // Everything is let go of: handles, locks, waits.
                var after = during
                let isBack: ()? = try? until("what the user took to come back", seconds: 60) {
                    after = try Resources(of: mirror.pid)
                    return after.isBack(to: before)
                }
                #expect(isBack != nil, "before: \(before); at the end: \(during); afterwards: \(after)")
                print(
                    "\(frontEnd): \(count) cold reads, worst \(worst) s; before: \(before); at the end: \(during); "
                        + "afterwards: \(after); \(output.out.split(separator: "\n").joined(separator: ", "))")
                // Nothing that is not his has changed.
                for index in 0..<12 {
                    #expect(try File.sameContent(mirror.at("large/\(index)"), mirror.remote("large/\(index)")))
                }
                for index in 0..<Self.coldCount { _ = try read(mirror, index) }
                #expect(try File.bytes(mirror.at("secret")) == Array("secret".utf8))
                try shell("rm -rf own", in: mirror.mount)
            }
        }
    }
}
