import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// `--on-change refetch`: a file whose remote copy has changed is taken to the new version as a whole.
    @Suite struct OnChange {
        private static let size = 3 << 20

        private func withRefetch(_ fill: String, apart: Bool = false, _ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: apart, mounting: ["--fill", fill, "--on-change", "refetch"]) { mirror throws in
                for name in ["file", "dirty"] { try Pattern.write(mirror.remote(name), size: Self.size, seed: 1) }
            } _: { mirror throws in
                try body(mirror)
            }
        }

        /// Gives the source another version, surely with other times.
        private func change(_ mirror: Mirror, _ name: String = "file", size: Int, seed: Int = 2) throws {
            usleep(20_000)
            try Pattern.write(mirror.remote(name), size: size, seed: seed)
            try #require(truncate(mirror.remote(name), off_t(size)) == 0)
        }

        /// The whole new version and nothing else; the kernel may take a moment to tell that the last reader is gone.
        private func expectNew(_ mirror: Mirror, _ range: Range<Int>) throws {
            let (old, new) = (Pattern.bytes(0..<Self.size, seed: 1), Pattern.bytes(range, seed: 2))
            try until("the new version") {
                guard let found = try? File.bytes(mirror.at("file")) else { return false }
                if found != new { #expect(found == old, "a mixture") }
                return found == new
            }
        }

        @Test(
            "Nobody has it open: the next reader gets the whole new version, with its size and time",
            arguments: ["open", "read"], [size, 100, 5 << 20, 0])
        func closed(fill: String, size: Int) throws {
            for apart in [false, true] {
                try withRefetch(fill, apart: apart) { mirror throws in
                    #expect(try File.stat(mirror.at("file")).st_size == Self.size)
                    if fill == "read" { _ = try File.bytes(mirror.at("file"), 0..<100_000) }
                    try change(mirror, size: size)
                    try mirror.settle()
                    #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<size, seed: 2))
                    let (shown, remote) = (try File.stat(mirror.at("file")), try File.stat(mirror.remote("file")))
                    #expect(shown.st_size == size)
                    #expect(shown.st_mtim.tv_sec == remote.st_mtim.tv_sec)
                    #expect(shown.st_mtim.tv_nsec == remote.st_mtim.tv_nsec, "\(apart)")
                    try until("the completion") { try mirror.state("file").state == "dual" }
                    #expect(try mirror.state("file").flags.isEmpty)
                }
            }
        }

        @Test("Somebody has it open: what is present stays as it was, what is absent is EIO, for later opens too")
        func open() throws {
            try withRefetch("read") { mirror throws in
                do {
                    let held = try File.open(mirror.at("file"))
                    #expect(try held.bytes(0..<100_000) == Pattern.bytes(0..<100_000, seed: 1))
                    try change(mirror, size: 1 << 20)
                    #expect(throws: Errno(rawValue: EIO)) { try held.bytes(2 << 20..<2 << 20 + 1) }
                    #expect(try mirror.state("file").flags.contains("stale"))
                    for _ in 0..<2 {
                        let later = try File.open(mirror.at("file"))
                        #expect(try later.bytes(0..<100_000) == Pattern.bytes(0..<100_000, seed: 1))
                        #expect(throws: Errno(rawValue: EIO)) { try later.bytes(2 << 20..<2 << 20 + 1) }
                    }
                    #expect(try held.bytes(50_000..<60_000) == Pattern.bytes(50_000..<60_000, seed: 1))
                    #expect(try held.stat().st_size == Self.size)
                    withExtendedLifetime(held) {}
                }
                try expectNew(mirror, 0..<1 << 20)
            }
        }

        @Test("A remote that is silent keeps an open waiting for two seconds, and then leaves the old version")
        func silent() throws {
            try withRefetch("read") { mirror throws in
                _ = try File.bytes(mirror.at("file"), 0..<100_000)
                try mirror.settle()
                try mirror.hold()
                let start = Clock.now
                #expect(try File.bytes(mirror.at("file"), 0..<4096) == Pattern.bytes(0..<4096, seed: 1))
                let waited = Clock.now - start
                #expect(waited > 1.5 && waited < 10, "\(waited)")
                mirror.letGo()
                #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<Self.size, seed: 1))
            }
        }

        @Test(
            "A daemon that is killed at any step of it leaves the old version or the new one, whole, and its size",
            arguments: ["refetch.recorded", "refetch.cut", "refetch.sized", "refetch.done"])
        func killed(point: String) throws {
            for size in [1 << 20, 5 << 20] {
                try withMirror(mounting: nil) { mirror throws in
                    try Pattern.write(mirror.remote("file"), size: Self.size, seed: 1)
                } _: { mirror throws in
                    try mirror.start(["--fill", "read", "--on-change", "refetch"], failpoints: "\(point):kill")
                    _ = try File.bytes(mirror.at("file"), 0..<100_000)
                    try mirror.settle()
                    try change(mirror, size: size)
                    _ = try? File.bytes(mirror.at("file"))
                    try until("the kill") { !isRunning(mirror.pid) }
                    try mirror.killDaemon()
                    // Without a refetch: the size is right at the first look.
                    try mirror.start(["--fill", "read"])
                    #expect(try File.stat(mirror.at("file")).st_size == size)
                    #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<size, seed: 2))
                    #expect(try mirror.state("file").flags.isEmpty)
                    try mirror.stop()
                    let left = try FileManager.default.contentsOfDirectory(atPath: mirror.lower + "/.passhsm/tmp")
                    #expect(left.isEmpty)
                }
            }
        }

        @Test("A file with local changes is never taken to another version")
        func dirty() throws {
            try withRefetch("read") { mirror throws in
                try File.open(mirror.at("dirty"), O_WRONLY).put([1, 2, 3], at: 1_500_000)
                try change(mirror, "dirty", size: 1 << 20)
                for _ in 0..<2 { #expect(File.readError(mirror.at("dirty")) == EIO) }
                #expect(try File.stat(mirror.at("dirty")).st_size == Self.size)
                #expect(try File.bytes(mirror.at("dirty"), 1_500_000..<1_500_003) == [1, 2, 3])
                #expect(Set(try mirror.state("dirty").flags) == ["dirty", "error", "stale"])
            }
        }

        @Test("A remote that does not answer leaves the old version; one that is gone too")
        func unreachable() throws {
            try withRefetch("read") { mirror throws in
                do {
                    let held = try File.open(mirror.at("file"))
                    _ = try held.bytes(0..<100_000)
                    try change(mirror, size: Self.size)
                    #expect(File.readError(mirror.at("file")) == EIO)
                }
                try mirror.fail(true)
                #expect(try File.bytes(mirror.at("file"), 0..<10) == Pattern.bytes(0..<10, seed: 1))
                try mirror.fail(false)
                try until("the new version") {
                    try File.bytes(mirror.at("file"), 0..<10) == Pattern.bytes(0..<10, seed: 2)
                }
                unlink(mirror.remote("file"))
                #expect(File.readError(mirror.at("file")) == EIO)
                #expect(try File.bytes(mirror.at("file"), 0..<10) == Pattern.bytes(0..<10, seed: 2))
            }
        }
    }
}
