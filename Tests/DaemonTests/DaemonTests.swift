import Glibc
import HSMControl
import HSMStore
import HSMSystem
import Synchronization
import TestSupport
import Testing

@testable import HSMDaemon

/// The life of a daemon with a front end that mounts nothing.
@Suite struct DaemonTests {
    @Test("A daemon starts, answers, and ends when it is unmounted, with everything in order")
    func life() throws {
        let fixture = try DaemonFixture(recorded: ["fill": "open", "offline": "error"])
        #expect(fixture.daemon.announcement.contains("(fuse, it pretends); filled at open"))
        let hasEnded = try DaemonFixture.start(fixture.daemon.run)
        let client = try fixture.client
        let status = try #require(try client.request(.status).status)
        #expect(status.frontEnd == .fuse && status.source == "fake:" && status.knownInodes == 7)
        #expect(status.options == ["fill": "open", "offline": "error"] && status.cache == "exclusive")
        let state = try #require(try client.request(.state(BytePath("dir/c"))).state)
        #expect(state.state == "offline" && state.size == 2)
        let error = #expect(throws: ControlError.self) { try client.request(.state(BytePath("dir/d"))) }
        #expect(error?.reason == .refused)
        _ = try client.request(.drain)
        fixture.frontEnd.unmount()
        try hasEnded()
        #expect(fixture.frontEnd.calls == [.start, .drain, .unmounted, .finish])
        #expect(fixture.registry.all() == [])
    }

    @Test("A client ends a daemon, and its signal, twice as well as once")
    func stop() throws {
        let fixture = try DaemonFixture()
        let hasEnded = try DaemonFixture.start(fixture.daemon.run)
        _ = try fixture.client.request(.stop(force: true))
        fixture.daemon.stop()
        try hasEnded()
        // The client's comes after its reply.
        try until("both") { fixture.frontEnd.calls.count { $0 == .stop } == 2 }
        #expect(Set(fixture.frontEnd.calls) == [.start, .stop, .unmounted, .finish])
    }

    @Test("A command that is not known, or lacks what it takes, is refused, and no file is touched")
    func unknown() throws {
        let fixture = try DaemonFixture()
        let socket = try fixture.connect()
        for line in [
            #"{"command":"evict","paths":["a"]}"#, #"{"command":"Pin","paths":["a"]}"#, #"{"paths":["a"]}"#,
            #"{"command":"unpin"}"#, #"{"command":"unpin","paths":"a"}"#, #"{"command":["unpin"],"paths":["a"]}"#,
        ] {
            #expect(try fixture.ask(line, socket).error?.hasPrefix("invalid request: ") == true, "\(line)")
        }
        // No other command is work on files either.
        for line in [#"{"command":"status","paths":["a"]}"#, #"{"command":"drain","paths":["a"]}"#] {
            #expect(try fixture.ask(line, socket).error == nil, "\(line)")
        }
        #expect(fixture.frontEnd.calls == [.start, .drain])
        let (a, c) = (try fixture.inode("a"), try fixture.inode("dir/c"))
        try fixture.client.work(FileRequest(.unpin, paths: [BytePath("a")])) { _ in }
        try fixture.client.work(FileRequest(.pin, paths: [BytePath("dir/c")])) { _ in }
        #expect(fixture.frontEnd.calls == [.start, .drain, .unpinned(a), .pinned(c)])
    }

    @Test("What is recorded and not known keeps a mount from beginning, as does a directory that was never imported")
    func refusals() throws {
        func refusal(_ recorded: [String: String], isImported: Bool = true) throws -> String {
            var text = ""
            do { _ = try DaemonFixture(recorded: recorded, isImported: isImported) } catch let error as DaemonError {
                text = error.description
            }
            return text
        }
        #expect(try refusal([:], isImported: false).hasSuffix("was never imported; run `passhsm import` first"))
        #expect(try refusal(["fill": "never"]).hasPrefix("the recorded setting fill=never: "))
        #expect(try refusal(["passthrough": "maybe"]).contains("passthrough=maybe"))
    }

    @Test("A mount that cannot be made is told with its cause, and leaves no entry in the registry")
    func failedMount() throws {
        let folder = try DaemonFixture.lowerDirectory()
        defer { system("rm -rf \(folder)") }
        let builder = FakeBuilder(.fanotify, atStart: { () throws(Errno) in throw Errno(rawValue: EOPNOTSUPP) })
        let lower = BytePath(folder + "/lower")
        let registry = RuntimeDirectory(path: BytePath(folder + "/registry"))
        let error = #expect(throws: DaemonError.self) {
            try Daemon(
                DaemonConfiguration(lower: lower, mountpoint: lower), frontEnd: builder,
                openRemote: { _ in FakeRemote.empty() }, registry: registry, failures: RecentFailures(),
                log: DaemonFixture.log)
        }
        #expect(error?.description.hasSuffix("no pre-content events; use --frontend fuse") == true)
        #expect(registry.all() == [])
    }

    @Test("A daemon that gets no control socket takes its mount away")
    func noSocket() throws {
        let folder = try DaemonFixture.lowerDirectory()
        defer { system("rm -rf \(folder)") }
        let builder = FakeBuilder { mkdir("\(folder)/registry/\(getpid())/control.sock", 0o700) }
        let lower = BytePath(folder + "/lower")
        #expect(throws: ControlError.self) {
            try Daemon(
                DaemonConfiguration(lower: lower, mountpoint: lower), frontEnd: builder,
                openRemote: { _ in FakeRemote.empty() },
                registry: RuntimeDirectory(path: BytePath(folder + "/registry")),
                failures: RecentFailures(), log: DaemonFixture.log)
        }
        #expect(builder.frontEnd?.calls == [.start, .stop])
    }
}
