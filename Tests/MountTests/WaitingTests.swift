import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// 5 and 8: who waits for the remote waits alone, and can be killed.
    @Suite struct Waiting {
        @Test("With one remote read held, 1,000 getattr, open and read of other files finish meanwhile")
        func others() throws {
            try withMirror { mirror throws in
                for index in 0..<1000 { try Pattern.write(mirror.remote("f\(index)"), size: 3000, seed: index) }
                try Pattern.write(mirror.remote("held-small"), size: 3000)
                try Pattern.write(mirror.remote("held-large"), size: 3 << 20)
            } _: { mirror throws in
                for index in 0..<1000 { _ = try File.bytes(mirror.at("f\(index)")) }
                try mirror.hold()
                let waiters = try ["held-small", "held-large"].map {
                    try Child(["cmp", mirror.remote($0), mirror.at($0)])
                }
                try until("both to wait") { try mirror.status().waiting >= 2 }
                let start = Clock.now
                for index in 0..<1000 {
                    #expect(try File.stat(mirror.at("f\(index)")).st_size == 3000)
                    #expect(try File.bytes(mirror.at("f\(index)")) == Pattern.bytes(0..<3000, seed: index))
                }
                // Metadata of the files that are waited for, too.
                #expect(try File.stat(mirror.at("held-small")).st_size == 3000)
                try shell("ls -l >/dev/null; touch new; mv new newer; rm newer", in: mirror.mount)
                #expect(Clock.now - start < 5)
                #expect(waiters.allSatisfy { $0.poll() == nil }, "they wait all the while")
                mirror.letGo()
                for waiter in waiters { #expect(try waiter.wait(seconds: 20).code == 0) }
            }
        }

        @Test(
            "100 of 100 processes that wait for a held fill die within a second of SIGKILL",
            arguments: ["open", "read"])
        func kill(fill: String) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                for index in 0..<100 { try Pattern.write(mirror.remote("f\(index)"), size: 100_000, seed: index) }
                try Pattern.write(mirror.remote("shared"), size: 1000)
            } _: { mirror throws in
                try mirror.hold()
                let readers = try (0..<100).map { try Child(["cat", mirror.at("f\($0)")]) }
                let shared = try (0..<2).map { _ in try Child(["cat", mirror.at("shared")]) }
                try until("all to wait") { try mirror.status().waiting >= (fill == "open" ? 102 : 101) }
                var slowest = 0.0
                for reader in readers + shared.prefix(1) {
                    let start = Clock.now
                    reader.kill(SIGKILL)
                    #expect(try reader.wait(seconds: 10).code == 128 + SIGKILL)
                    slowest = max(slowest, Clock.now - start)
                }
                #expect(slowest < 1)
                try until("the killed to be forgotten") { try mirror.status().waiting == 1 }
                mirror.letGo()
                let output = try shared[1].wait(seconds: 20)
                #expect(output.code == 0 && output.out.utf8.count >= 1000, "who still waits gets the bytes")
                #expect(try mirror.status().counter("bytesFetched") == 1000, "the fills of the killed were cancelled")
                #expect(try File.bytes(mirror.at("f7")) == Pattern.bytes(0..<100_000, seed: 7))
            }
        }

        @Test("SIGINT and SIGTERM end a waiting process as well", arguments: [SIGINT, SIGTERM])
        func otherSignals(signal: Int32) throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("small"), size: 1000)
                try Pattern.write(mirror.remote("large"), size: 3 << 20)
            } _: { mirror throws in
                try mirror.hold()
                for name in ["small", "large"] {
                    let reader = try Child(["cat", mirror.at(name)])
                    try until("it to wait") { try mirror.status().waiting == 1 }
                    reader.kill(signal)
                    #expect(try reader.wait(seconds: 5).code == 128 + signal)
                    try until("it to be forgotten") { try mirror.status().waiting == 0 }
                }
            }
        }

        enum End: CaseIterable { case unmount, force, terminate, interrupt }

        @Test(
            "Ending with 100 fills pending takes less than 5 s, and every waiter gets an answer",
            arguments: End.allCases)
        func unmountPending(end: End) throws {
            try withMirror { mirror throws in
                for index in 0..<50 { try Pattern.write(mirror.remote("small\(index)"), size: 1000, seed: index) }
                for index in 0..<50 { try Pattern.write(mirror.remote("large\(index)"), size: 2 << 20, seed: index) }
            } _: { mirror throws in
                try mirror.hold()
                let names = (0..<50).flatMap { ["small\($0)", "large\($0)"] }
                let readers = try names.map { try Child(["cat", mirror.at($0)]) }
                try until("all to wait") { try mirror.status().waiting >= 100 }
                let start = Clock.now
                switch end {
                case .unmount: #expect(try passhsm("unmount", mirror.mount).code == 0)
                case .force: #expect(try passhsm("unmount", mirror.mount, "--force").code == 0)
                case .terminate: Glibc.kill(mirror.pid, SIGTERM)
                case .interrupt: Glibc.kill(mirror.pid, SIGINT)
                }
                try mirror.awaitEnd()
                #expect(Clock.now - start < 5)
                for reader in readers {
                    let output = try reader.wait(seconds: 5)
                    #expect(output.code == 1 && output.out.isEmpty, "an error, and no wrong byte: \(output)")
                }
            }
        }

        @Test("A file that is filled whole for longer than the deadline is had")
        func slow() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("large"), size: 4 << 20)
            } _: { mirror throws in
                try mirror.start(["--deadline", "3", "--fill", "open"], remote: "bandwidth=512K")
                #expect(try File.sameContent(mirror.remote("large"), mirror.at("large")))
                #expect(try mirror.status().counter("errors") == 0)
            }
        }

        @Test("A fill of which nothing comes within the deadline fails with EIO")
        func deadline() throws {
            try withMirror(mounting: ["--deadline", "1"]) { mirror throws in
                try Pattern.write(mirror.remote("small"), size: 1000)
                try Pattern.write(mirror.remote("large"), size: 3 << 20)
            } _: { mirror throws in
                try mirror.hold()
                #expect(File.readError(mirror.at("small")) == EIO)
                #expect(File.readError(mirror.at("large")) == EIO)
                mirror.letGo()
                #expect(try File.sameContent(mirror.remote("large"), mirror.at("large")))
            }
        }

        @Test("A remote that fails gives EIO with the cause in the state, and comes back when it does")
        func failing() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("small"), size: 1000)
                try Pattern.write(mirror.remote("large"), size: 3 << 20)
            } _: { mirror throws in
                try mirror.fail(true)
                for name in ["small", "large"] {
                    #expect(File.readError(mirror.at(name)) == EIO)
                    let state = try mirror.state(name)
                    #expect(state.lastError?.contains("simulated") == true)
                    #expect(state.presentBytes == 0)
                }
                #expect(try mirror.status().counter("errors") > 0)
                try mirror.fail(false)
                for name in ["small", "large"] {
                    #expect(try File.sameContent(mirror.remote(name), mirror.at(name)))
                }
            }
        }
    }
}
