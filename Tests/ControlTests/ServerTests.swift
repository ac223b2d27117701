import Glibc
import HSMControl
import HSMSystem
import Synchronization
import TestSupport
import Testing

@Suite struct ServerTests {
    private final class Fixture: Sendable {
        nonisolated(unsafe) let registry: TemporaryRegistry
        let server: ControlServer
        let client: ControlClient
        let calls = Calls()

        init(
            connections: Int = 8, waiting: Int = 64, seconds: Double = 60, users: Set<UInt32> = [OwnProcess.user],
            status: @escaping @Sendable () -> StatusReport = { .example() }
        ) throws {
            registry = try TemporaryRegistry()
            let info = DaemonInfo.own("/mnt/server")
            let registration = try registry.directory.register(info)
            client = ControlClient(info, in: registry.directory)
            var limits = ControlServer.Limits()
            limits.seconds = seconds
            limits.connections = connections
            limits.waiting = waiting
            let calls = calls
            server = try ControlServer(
                registration,
                handlers: .example(
                    status: status, drain: { calls.drains.add(1, ordering: .relaxed) },
                    stop: { force in calls.stops.withLock { $0.append(force) } }),
                limits: limits, users: users)
        }

        deinit { server.stop() }

        func connect() throws -> LocalSocket {
            let path = registry.path.appending("\(getpid())")
            let folder = try path.withCString { name throws(Errno) in try Descriptor.open(name, O_RDONLY) }
            return try LocalSocket.connect("control.sock", in: folder, until: Deadline(seconds: 2))
        }
    }

    private final class Calls: Sendable {
        let drains = Atomic<Int>(0)
        let stops = Mutex<[Bool]>([])
    }

    private let soon = Deadline(seconds: 30)

    @Test func statusIsAnswered() throws {
        let fixture = try Fixture()
        let status = try #require(try fixture.client.request(.status).status)
        #expect(status.mountpoint == StatusReport.example().mountpoint)
        #expect(status.counters == StatusReport.example().counters)
    }

    @Test func drainAndStopReachTheirHandlers() throws {
        let fixture = try Fixture()
        _ = try fixture.client.request(.drain)
        _ = try fixture.client.request(.stop(force: true))
        #expect(fixture.calls.drains.load(ordering: .relaxed) == 1)
        while fixture.calls.stops.withLock(\.isEmpty) { usleep(1000) }
        #expect(fixture.calls.stops.withLock { $0 } == [true])
    }

    @Test(arguments: ["garbage", "", "{}", "{\"command\":\"explode\"}", "\u{0}\u{1}", "[1,2", "{\"command\":7}"])
    func garbageIsRefusedAndTheConnectionGoesOn(text: String) throws {
        let fixture = try Fixture()
        let socket = try fixture.connect()
        try socket.write(Array(text.utf8) + [10], until: soon)
        let reply = try ControlJSON.decode(ControlReply.self, from: socket.readLine(limit: 1 << 20, until: soon))
        #expect(reply.error?.hasPrefix("invalid request") == true)
        try socket.write(Array("{\"command\":\"status\"}\n".utf8), until: soon)
        let second = try ControlJSON.decode(ControlReply.self, from: socket.readLine(limit: 1 << 20, until: soon))
        #expect(second.status != nil)
    }

    @Test(
        "A command that is not known, or lacks what it takes, is refused, and nothing is done",
        arguments: [
            (#"{"command":"evict","paths":["a"]}"#, "there is no command evict"),
            (#"{"command":"RELEASE","paths":["a"]}"#, "there is no command RELEASE"),
            (#"{"command":"\u001b[31m"}"#, "there is no command"), (#"{"command":"pin"}"#, "pin takes paths"),
            (#"{"command":"state"}"#, "state takes one path"),
            (#"{"command":"state","paths":["a","b"]}"#, "state takes one path"),
            (#"{"command":"pin","paths":["a"],"recursive":"yes"}"#, ""), (#"{"command":"stop","force":1}"#, ""),
        ])
    func refusals(line: String, reason: String) throws {
        let fixture = try Fixture()
        let socket = try fixture.connect()
        try socket.write(Array(line.utf8) + [10], until: soon)
        let reply = try ControlJSON.decode(ControlReply.self, from: socket.readLine(limit: 1 << 20, until: soon))
        #expect(reply.error?.hasPrefix("invalid request: \(reason)") == true, "\(reply.error ?? "")")
        #expect(reply.error?.contains("\u{1b}") == false)
        // Each command that is known comes back as it was sent.
        let all: [ControlRequest] =
            [.status, .drain, .stop(force: true), .stop(force: false), .state(BytePath([0xff, 0x0a]))]
            + FileRequest.Action.allCases.map { .files(FileRequest($0, paths: [BytePath("a")], isRecursive: true)) }
        for request in all {
            #expect(try ControlJSON.decode(ControlRequest.self, from: ControlJSON.encode(request)) == request)
        }
        #expect(fixture.calls.stops.withLock { $0 } == [])
    }

    @Test("The reason why work on files is refused comes to the client")
    func refusedWork() throws {
        let fixture = try Fixture()
        let error = #expect(throws: ControlError.self) {
            try fixture.client.work(FileRequest(.pin, paths: [BytePath("a")])) { _ in }
        }
        #expect(error?.reason == .refused && error?.description.contains("there are no files") == true)
    }

    @Test func deepNestingDoesNotExhaustTheStack() throws {
        let fixture = try Fixture()
        let socket = try fixture.connect()
        let nested = Array(String(repeating: "{\"a\":[", count: 150_000).utf8)
        try socket.write(nested + [10], until: soon)
        let reply = try ControlJSON.decode(ControlReply.self, from: socket.readLine(limit: 1 << 20, until: soon))
        #expect(reply.error != nil)
        #expect(try fixture.client.request(.status).status != nil)
    }

    @Test func aRequestOfMoreThanAMebibyteEndsTheConnection() throws {
        let fixture = try Fixture()
        let socket = try fixture.connect()
        let flood = [UInt8](repeating: 0x20, count: 3 << 20)
        #expect(throws: Errno.self) { try socket.write(flood, until: soon) }
        #expect(try fixture.client.request(.status).status != nil)
    }

    @Test func silentAndVanishedClientsHoldNobodyUp() throws {
        let fixture = try Fixture(connections: 2, seconds: 0.5)
        // More than the server takes at once: each is dropped after its timeout of half a second.
        let silent = try (0..<4).map { _ in try fixture.connect() }
        for _ in 0..<10 {
            let vanished = try fixture.connect()
            try vanished.write(Array("{\"command\":\"status\"}\n{\"comm".utf8), until: soon)
        }
        #expect(try fixture.client.request(.status, seconds: 5).status != nil)
        withExtendedLifetime(silent) {}
    }

    @Test func moreConnectionsOfAUserThanMayWaitAreRefusedWithTheReason() throws {
        let fixture = try Fixture(connections: 2, waiting: 3, seconds: 60)
        let held = try (0..<5).map { _ in try fixture.connect() }
        let error = try #require(throws: ControlError.self) {
            try fixture.client.request(.status, seconds: 20)
        }
        #expect(error.reason == .refused && error.description.contains("has 5 connections"), "\(error)")
        withExtendedLifetime(held) {}
    }

    @Test("A user who holds a thousand connections keeps no other user waiting")
    func connectionsOfAnother() throws {
        let fixture = try Fixture(connections: 2, waiting: 3, seconds: 60, users: [65534, OwnProcess.user])
        let folder = fixture.registry.path.description
        let socket = "\(folder)/\(getpid())/control.sock"
        chmod(socket, 0o777)
        for name in [folder, "\(folder)/\(getpid())"] { chmod(name, 0o711) }
        let script = """
            use Socket; $| = 1;
            for (1..1000) {
                socket($held[$_], AF_UNIX, SOCK_STREAM, 0) && connect($held[$_], sockaddr_un($ARGV[0])) or die "$!";
            }
            print "held"; sleep 60;
            """
        let (reader, writer) = try ChildProcess.pipe()
        var output: Descriptor? = writer
        let child = try ChildProcess(
            program: BytePath("/usr/bin/setpriv"),
            arguments: [
                "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script, socket,
            ].map { BytePath($0) }, descriptors: .init(output: output, errors: output))
        defer {
            kill(child.id, SIGKILL)
            _ = try? child.wait()
        }
        output = nil
        withExtendedLifetime(writer) {}
        #expect(String(decoding: try reader.readToEnd(limit: 4), as: UTF8.self) == "held")
        for name in ["\(folder)/\(getpid())", folder] { chmod(name, 0o700) }
        #expect(try fixture.client.request(.status, seconds: 20).status != nil)
    }

    @Test func aClientThatTricklesIsCutOff() throws {
        let fixture = try Fixture(connections: 1, seconds: 0.5)
        let socket = try fixture.connect()
        try until("the end of the connection") {
            usleep(50_000)
            return (try? socket.write([0x20], until: soon)) == nil
        }
    }

    @Test func aDaemonThatHangsIsReportedAsSuch() throws {
        let isFree = Flag()
        let fixture = try Fixture(status: {
            while !isFree.isSet { usleep(1000) }
            return .example()
        })
        defer { isFree.set() }
        let error = try #require(throws: ControlError.self) {
            try fixture.client.request(.status, seconds: 0.2)
        }
        #expect(error.reason == .noAnswer)
    }

    @Test func afterStopThereIsNoDaemon() throws {
        let fixture = try Fixture()
        fixture.server.stop()
        fixture.server.stop()
        #expect(throws: ControlError.self) { try fixture.client.request(.status) }
        let gone = ControlClient(try .gone("/mnt/x"), in: fixture.registry.directory)
        let error = try #require(throws: ControlError.self) { try gone.request(.status) }
        #expect(error.reason == .noDaemon)
    }
}
