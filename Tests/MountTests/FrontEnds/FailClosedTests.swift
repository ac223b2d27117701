import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.FrontEnds {
    /// What becomes of readers when the daemon of the fanotify front end dies.
    @Suite struct FailClosed {
        private static let rounds = Machine.isLong ? 200 : 10
        private static let files = 40

        private static func size(_ index: Int) -> Int { index % 4 == 0 ? 3 << 20 : 1000 + index * 30_011 }

        private func withFiles(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: nil, limit: Machine.isLong ? 3600 : 300) { mirror throws in
                for index in 0..<Self.files {
                    try Pattern.write(mirror.remote("f\(index)"), size: Self.size(index), seed: index)
                }
            } _: { mirror throws in
                do { try body(mirror) } catch {
                    _ = try? passhsm("unmount", mirror.mount, seconds: 30)
                    throw error
                }
            }
        }

        /// Ends the daemon as a crash does; its mount and its guardian stay.
        private func crash(_ mirror: Mirror) throws {
            try mirror.killDaemon(detaching: false)
        }

        private func start(_ mirror: Mirror, takeover: Int, _ arguments: [String] = []) throws {
            try mirror.start(
                FrontEnd.fanotify.arguments + ["--takeover", "\(takeover)"] + arguments,
                remote: "latency=2ms,bandwidth=80M")
        }

        @Test("After kill -9 at random moments under load, and a restart, no reader gets a wrong byte; 10 rounds")
        func killed() throws {
            try withFiles { mirror in
                var random = SystemRandomNumberGenerator()
                var (waited, inherited, fetched, errors) = (0, 0, 0, 0)
                for round in 0..<Self.rounds {
                    let fill = round % 3 == 2 ? "read" : "open"
                    try start(mirror, takeover: 60, ["--fill", fill])
                    // Each read is compared whole; an error is told, and never content.
                    let script = """
                        import os, random, sys
                        mount, source, files, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
                        random.seed(seed); order = list(range(files)); random.shuffle(order); errors = 0
                        for index in order:
                            try:
                                with open(f"{mount}/f{index}", "rb", buffering=0) as f: content = f.readall()
                            except OSError as error:
                                errors += 1
                                continue
                            if content != open(f"{source}/f{index}", "rb").read():
                                print("wrong bytes in", index, len(content)); sys.exit(3)
                        print(errors)
                        """
                    let readers = try (0..<6).map { reader in
                        try Child([
                            "python3", "-c", script, mirror.mount, mirror.source, "\(Self.files)",
                            "\(round * 10 + reader)",
                        ])
                    }
                    try until("readers at work") { try mirror.requests()["open"] ?? 0 >= 3 }
                    usleep(.random(in: 0...400_000, using: &random))
                    try crash(mirror)
                    usleep(.random(in: 0...50_000, using: &random))
                    waited += readers.count { $0.poll() == nil }
                    try start(mirror, takeover: 60, ["--fill", fill])
                    for reader in readers {
                        let output = try reader.wait(seconds: 60)
                        #expect(output.code == 0, "round \(round): \(output) \(output.out)")
                        errors += Int(output.out.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
                    }
                    let counters = try mirror.requests()
                    #expect(counters["answeredTwice"] == 0 && counters["unanswered"] == 0)
                    inherited += counters["inherited"] ?? 0
                    fetched += try mirror.status().counter("bytesFetched")
                    try mirror.expectOneAnswerEach()
                    if round % 20 == 19 {
                        print(
                            "PASSHSM: \(round + 1) kills, \(waited) readers under way, \(inherited) accesses taken over,",
                            "\(errors) reads denied, none wrong")
                    }
                    for index in 0..<Self.files { _ = try? passhsm("release", mirror.at("f\(index)")) }
                    try mirror.stop()
                }
                // Only what was read by the daemon and not yet noted down when it died is denied.
                #expect(waited > Self.rounds, "hardly anybody waited: nothing was tested")
                #expect(inherited > 0 || !Machine.isLong, "no access was taken over: nothing was tested")
                #expect(fetched > Self.rounds * 4 * Self.size(0), "hardly anything was cold: nothing was tested")
                #expect(errors <= waited / 2, "\(errors) errors")
                print(
                    "PASSHSM: \(Self.rounds) kills, \(waited) readers under way, \(inherited) accesses taken over,",
                    "\(errors) reads denied, none wrong")
            }
        }

        @Test(
            "However many files are known to be complete, the mount stays, and its guardian when the daemon is killed")
        func manyMarks() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 60)
                // Each has a mark; what the kernel tells of 12,000 is more than a megabyte.
                let script = """
                    import sys
                    for n in range(12000): open(f"{sys.argv[1]}/own-{n}", "w").close()
                    """
                let output = try run(["python3", "-c", script, mirror.mount], seconds: 120)
                #expect(output.code == 0, "\(output)")
                let before = try bytesRead(mirror.pid)
                sleep(3)
                #expect(try bytesRead(mirror.pid) - before < 100_000, "all marks are asked for, and none can be set")
                try crash(mirror)
                let reader = try Child(["cmp", mirror.at("f0"), mirror.remote("f0")])
                usleep(1_500_000)
                #expect(reader.poll() == nil, "nobody kept it waiting")
                try start(mirror, takeover: 60)
                let compared = try reader.wait(seconds: 30)
                #expect(compared.code == 0, "\(compared)")
                // Nobody sees it any more, and it is in use.
                do {
                    let top = try File.open(mirror.mount, O_RDONLY | O_DIRECTORY)
                    umount2(mirror.mount, Int32(MNT_DETACH))
                    sleep(2)
                    let file = try Descriptor.open(at: top.raw, "f1", O_RDONLY)
                    #expect(try file.bytes(0..<Self.size(1)) == Pattern.bytes(0..<Self.size(1), seed: 1))
                    withExtendedLifetime(top) {}
                }
                try mirror.awaitEnd()
            }
        }

        /// By read(2) and its like, since it began.
        private func bytesRead(_ pid: pid_t) throws -> Int {
            let text = try String(contentsOfFile: "/proc/\(pid)/io", encoding: .utf8)
            let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("rchar: ") })
            return try #require(Int(line.dropFirst(7)))
        }

        @Test("Readers whose daemon is killed wait for the next one, which answers them")
        func takenOver() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 60)
                try mirror.hold()
                let readers = try (0..<8).map { try Child(["cmp", mirror.at("f\($0)"), mirror.remote("f\($0)")]) }
                try until("waiting readers") { try mirror.status().waiting >= 8 }
                try crash(mirror)
                let late = try Child(["cmp", mirror.at("f20"), mirror.remote("f20")])
                usleep(500_000)
                #expect((readers + [late]).allSatisfy { $0.poll() == nil }, "they wait")
                mirror.letGo()
                try start(mirror, takeover: 60)
                for reader in readers + [late] {
                    let output = try reader.wait(seconds: 30)
                    #expect(output.code == 0, "\(output)")
                }
                #expect(try (mirror.requests()["inherited"] ?? 0) >= 8)
                try mirror.stop()
            }
        }

        @Test("When no daemon comes within the deadline everybody is denied with EIO, until one comes after all")
        func denied() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 1)
                #expect(try File.sameContent(mirror.at("f1"), mirror.remote("f1")))
                try mirror.hold()
                let reader = try Child(["cat", mirror.at("f0")])
                try until("a waiting reader") { try mirror.status().waiting >= 1 }
                try crash(mirror)
                mirror.letGo()
                let output = try reader.wait(seconds: 10)
                #expect(output.code == 1 && output.out.isEmpty && output.err.contains("Input/output error"))
                #expect(File.readError(mirror.at("f2")) == EIO)
                try start(mirror, takeover: 1)
                #expect(try mirror.content("f0") == Pattern.bytes(0..<Self.size(0)))
                #expect(try mirror.content("f2") == Pattern.bytes(0..<Self.size(2), seed: 2))
                try mirror.stop()
            }
        }

        @Test("A mount whose daemon was killed can be taken away; a FUSE mount in its place is refused before")
        func abandoned() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 60)
                let file = try File.open(mirror.at("f0"))
                try crash(mirror)
                let output = try passhsm("mount", mirror.lower, mirror.mount, seconds: 30)
                #expect(output.code == 1 && output.err.contains("whose daemon died"), "\(output)")
                let unmounted = try passhsm("unmount", mirror.mount, seconds: 30)
                #expect(unmounted.code == 0, "\(unmounted)")
                #expect(!mirror.isMounted)
                withExtendedLifetime(file) {}
            }
        }

        @Test("An open file of a mount that was taken away by force is never zeros, nor after its daemon's end")
        func forced() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 60, ["--fill", "read"])
                let file = try File.open(mirror.at("f0"))
                _ = try file.bytes(0..<10)
                let output = try passhsm("unmount", "--force", mirror.mount, seconds: 30)
                #expect(output.code == 0, "\(output)")
                try mirror.awaitEnd()
                usleep(300_000)
                do {
                    let bytes = try file.bytes(0..<Self.size(0))
                    #expect(bytes == Pattern.bytes(0..<Self.size(0)))
                } catch { #expect((error as? Errno)?.rawValue == EIO) }
            }
        }

        /// Whether the process has a fanotify group.
        private func hasGroup(_ pid: pid_t) -> Bool {
            let folder = "/proc/\(pid)/fd"
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            return names.contains { name in
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\(name)"))?.contains("fanotify")
                    == true
            }
        }

        @Test("A guardian that is killed is replaced, and the next death of the daemon is still no reader's loss")
        func guardianKilled() throws {
            try withFiles { mirror in
                try start(mirror, takeover: 60)
                let top = try File.stat(mirror.mount)
                let pattern = "guardian-\(top.st_dev)-\(top.st_ino)"
                let find = "pgrep -f \"passhsm guard $1( |\\$)\""
                let guardian = try #require(
                    Int32(shell(find, [pattern]).trimmingCharacters(in: .whitespacesAndNewlines)))
                kill(guardian, SIGKILL)
                try until("another guardian") {
                    let found = (try? shell(find, [pattern])) ?? ""
                    guard let other = Int32(found.trimmingCharacters(in: .whitespacesAndNewlines)) else { return false }
                    return other != guardian && hasGroup(other)
                }
                try mirror.hold()
                let reader = try Child(["cmp", mirror.at("f3"), mirror.remote("f3")])
                try until("a waiting reader") { try mirror.status().waiting >= 1 }
                try crash(mirror)
                mirror.letGo()
                try start(mirror, takeover: 60)
                let output = try reader.wait(seconds: 30)
                #expect(output.code == 0, "\(output)\(output.out)\(mirror.log)")
                try mirror.stop()
            }
        }
    }
}
