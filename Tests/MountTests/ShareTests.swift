import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// One user's load is no other's: places at the remote, deadlines and the end of the daemon.
    @Suite struct Shares {
        private static let calls = 8000
        /// Does `calls` readahead(2) of a page each, a MiB apart, and keeps the file open: closing it would end the waits.
        private static let readAhead = """
            import ctypes, os, sys, time
            libc = ctypes.CDLL(None, use_errno=True)
            file = os.open(sys.argv[1], os.O_RDONLY)
            for call in range(int(sys.argv[2])):
                assert libc.readahead(file, ctypes.c_long((call << 20) + int(sys.argv[3])), ctypes.c_size_t(4096)) == 0
            time.sleep(600)
            """

        private func withLarge(
            _ mounting: [String] = [], remote: String, _ body: (Mirror) throws -> Void
        ) throws {
            try withMirror(mounting: nil) { mirror throws in
                try shell("truncate -s \(Self.calls + 1)M slow-large", in: mirror.source)
                for index in 0..<100 { try Pattern.write(mirror.remote("slow\(index)"), size: 1000, seed: index) }
                for name in ["small", "small2"] { try File.put("hello\n", mirror.remote(name)) }
            } _: { mirror throws in
                try mirror.start(["--fill", "read"] + mounting, remote: remote + ",only=slow")
                try body(mirror)
            }
        }

        /// The process whose calls they are.
        private func askAhead(_ mirror: Mirror, atLeast count: Int, from offset: Int = 0) throws -> Child {
            let reader = try Child(
                ["python3", "-c", Self.readAhead, mirror.at("slow-large"), "\(Self.calls)", "\(offset)"])
            try until("the calls", seconds: 60) { try mirror.status().waiting >= count }
            return reader
        }

        private func another(_ mirror: Mirror, _ name: String) throws -> Output {
            let command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", mirror.at(name)]
            return try run(command, seconds: 15)
        }

        @Test(
            "8,000 readahead calls on a file that does not come keep nobody waiting, have their deadline, and no SIGTERM back"
        )
        func readAheadCalls() throws {
            try withLarge(["--deadline", "8"], remote: "latency=0ms") { mirror throws in
                try mirror.hold()
                var reader = try askAhead(mirror, atLeast: Self.calls)
                defer { reader.kill(SIGKILL) }
                #expect(try another(mirror, "small").out == "hello\n")
                #expect(try File.bytes(mirror.at("small2")) == Array("hello\n".utf8), "the same user's, too")
                try until("their deadline", seconds: 40) { try mirror.status().waiting == 0 }
                reader.kill(SIGKILL)
                #expect(try reader.wait(seconds: 10).code == 128 + SIGKILL)
                // Pages that have failed are not asked for again.
                reader = try askAhead(mirror, atLeast: Self.calls / 4, from: 1 << 19)
                Glibc.kill(mirror.pid, SIGTERM)
                try mirror.awaitEnd()
            }
        }

        @Test("A reader of a file on which thousands of readahead calls wait is served before them")
        func demandFirst() throws {
            // 64 KiB each: they alone take 25 s.
            try withLarge(remote: "latency=0ms,bandwidth=20M") { mirror throws in
                let ahead = try askAhead(mirror, atLeast: Self.calls / 2)
                defer { ahead.kill(SIGKILL) }
                for offset in [Self.calls << 20, (Self.calls - 10) << 20 | 1 << 19] {
                    let reader = try Child([
                        "dd", "if=\(mirror.at("slow-large"))", "of=/dev/null", "bs=4096", "count=1",
                        "skip=\(offset / 4096)",
                    ])
                    #expect(try reader.wait(seconds: 10).code == 0)
                    let status = try mirror.status()
                    #expect(status.waiting > 1000, "the others still wait: \(status.waiting)")
                }
                ahead.kill(SIGKILL)
                #expect(try ahead.wait(seconds: 10).code == 128 + SIGKILL)
            }
        }

        @Test("100 objects that hang keep no others waiting, of another user or the same")
        func hanging() throws {
            try withLarge(remote: "latency=0ms") { mirror throws in
                try mirror.hold()
                let readers = try (0..<100).map { try Child(["cat", mirror.at("slow\($0)")]) }
                try until("all to wait") { try mirror.status().waiting >= 100 }
                #expect(try another(mirror, "small").out == "hello\n")
                let same = try run(["cat", mirror.at("small2")], seconds: 15)
                #expect(same.out == "hello\n")
                #expect(readers.allSatisfy { $0.poll() == nil }, "they wait all the while")
                mirror.letGo()
                for (index, reader) in readers.enumerated() {
                    #expect(try reader.wait(seconds: 20).code == 0)
                    #expect(try File.bytes(mirror.at("slow\(index)")) == Pattern.bytes(0..<1000, seed: index))
                }
            }
        }
    }
}
