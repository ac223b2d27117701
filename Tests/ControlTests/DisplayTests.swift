import Glibc
import HSMControl
import HSMSystem
import Testing

@Suite struct DisplayTests {
    @Test func columnsAreAlignedAndEndWithoutSpaces() {
        #expect(
            TextTable.lines([["a", "bb", "c"], ["aaa", "b"], ["ü", "", "d"]]) == ["a    bb  c", "aaa  b", "ü        d"])
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"), (Int.max, "7.9 EiB"),
    ])
    func sizesAreInTheLargestUnit(bytes: Int, text: String) {
        #expect(TextTable.size(bytes) == text)
    }

    @Test func percentIsAHundredOnlyForAll() {
        #expect(TextTable.percent(Int.max - 1, of: Int.max) == "99 %")
        #expect(TextTable.percent(5, of: 5) == "100 %")
        #expect(TextTable.percent(0, of: 0) == "100 %")
        #expect(TextTable.percent(1, of: 3) == "33 %")
    }

    @Test func durationsHaveTwoUnits() {
        #expect([7, 306, 11_045, 93_600].map { TextTable.duration(seconds: $0) } == ["7s", "5m 6s", "3h 4m", "1d 2h"])
    }

    @Test func theLogIsNamedAfterTheLowerDirectory() throws {
        let lower = BytePath("/data/a b")
        func path(_ user: UInt32?, _ environment: [String: String]) throws -> String {
            try DaemonLog.defaultPath(
                lower: lower, user: user, environment: { environment[$0] }, fallback: { BytePath("/private") }
            ).description
        }
        #expect(try path(5, [:]) == "/private/data-a b.log")
        #expect(try path(nil, ["HOME": "/root"]) == "/var/log/passhsm/data-a b.log")
        #expect(try path(0, ["HOME": "/root"]) == "/root/.local/state/passhsm/data-a b.log", "of a user namespace")
        #expect(try path(5, ["HOME": "/h", "XDG_STATE_HOME": "/s"]) == "/s/passhsm/data-a b.log")
        #expect(try path(5, ["HOME": "/h", "XDG_STATE_HOME": "relative"]) == "/h/.local/state/passhsm/data-a b.log")
        let long = BytePath(components: (0..<60).map { Array("directory-\($0)".utf8) })
        let name = try DaemonLog.defaultPath(lower: long, user: nil, environment: { _ in nil }, fallback: { long })
            .components.last
        #expect((name?.count ?? 1000) < 255)
    }

    @Test func aLargeLogIsMovedAside() throws {
        let folder = try TemporaryRegistry()
        let path = folder.path.appending("deep").appending("a.log")
        try [1, 2].withBytes { bytes throws(Errno) in try DaemonLog.open(path).write(bytes, at: 0) }
        #expect(try path.stat().st_mode & 0o777 == 0o600)
        #expect(try DaemonLog.open(path).stat().st_size == 2)
        try DaemonLog.open(path).truncate(to: DaemonLog.rotationBytes + 1)
        #expect(try DaemonLog.open(path).stat().st_size == 0)
        #expect(try folder.path.appending("deep").appending("a.log.1").stat().st_size == DaemonLog.rotationBytes + 1)
    }

    @Test func theTailIsOfThisStartOnly() throws {
        let folder = try TemporaryRegistry()
        let path = folder.path.appending("a.log")
        try Array("old\none\ntwo\nthree\n".utf8).withBytes { bytes throws(Errno) in
            try DaemonLog.open(path).write(bytes, at: 0)
        }
        let log = try DaemonLog.open(path)
        #expect(DaemonLog.tail(log, from: 4, lines: 2) == ["two", "three"])
        #expect(DaemonLog.tail(log, from: 4) == ["one", "two", "three"])
        #expect(DaemonLog.tail(log, from: 400) == [])
    }

    @Test(
        "A log that is a link, a FIFO or another user's is refused, and what it leads to stays as it is",
        arguments: [
            "ln -s ../precious a.log", "ln ../precious a.log", "mkfifo a.log", "touch a.log; chown 65534 a.log",
        ])
    func foreignLog(change: String) throws {
        let folder = try TemporaryRegistry()
        system("cd \(folder.path) && echo precious >precious && mkdir logs && cd logs && { \(change); }")
        let log = folder.path.appending("logs/a.log")
        #expect(throws: Errno.self) { try DaemonLog.open(log) }
        #expect(SmallFile.text("\(folder.path)/precious") == "precious")
        // A link whose target is large is moved aside as a link.
        system("truncate -s 11M \(folder.path)/precious; ln -sf ../precious \(log)")
        #expect(throws: Errno.self) { try DaemonLog.open(log) }
        #expect(try log.linkStat().st_mode & S_IFMT == S_IFLNK)
    }

    @Test("A log may be a device")
    func device() throws {
        #expect(DaemonLog.tail(try DaemonLog.open(BytePath("/dev/null")), from: 0) == [])
    }

    @Test func aProcessWithAnOpenFileIsFound() throws {
        let folder = try TemporaryRegistry()
        let writer = try folder.path.appending("held").withCString { name throws(Errno) in
            try Descriptor.open(name, O_RDWR | O_CREAT, mode: 0o600)
        }
        let child = try ChildProcess(
            program: BytePath("/bin/sleep"), arguments: [BytePath("sleep"), BytePath("30")],
            descriptors: .init(output: writer))
        defer {
            kill(child.id, SIGKILL)
            _ = try? child.wait()
        }
        let users = MountUser.of(folder.path, except: nil)
        #expect(users.map(\.pid) == [child.id])
        #expect(users.map(\.path) == [folder.path.appending("held")])
        #expect(users.map(\.name) == ["sleep"])
        #expect(users.map(\.isWaiting) == [false])
        #expect(MountUser.of(folder.path, except: child.id) == [])
    }

    @Test func aChildInheritsOnlyWhatItIsGiven() throws {
        let (reader, writer) = try ChildProcess.pipe()
        let leaked = fcntl(0, F_DUPFD, 50)
        defer { close(leaked) }
        let script = "test -e /proc/$$/fd/\(leaked) && echo leaked; test -e /proc/$$/fd/2 || echo \"$VALUE\" >&3"
        let child = try ChildProcess(
            program: BytePath("/bin/sh"), arguments: ["sh", "-c", script].map { BytePath($0) },
            environment: [BytePath(Array("VALUE=".utf8) + [0xFF])], descriptors: .init(output: writer, extra: writer))
        #expect(try child.wait() == 0)
        var available: Int32 = 0
        #expect(ioctl(reader.raw, UInt(FIONREAD), &available) == 0)
        #expect(try reader.readToEnd(limit: Int(available)) == [0xFF, 10])
        withExtendedLifetime(writer) {}
    }
}
