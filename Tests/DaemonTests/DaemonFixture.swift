import Glibc
import HSMControl
import HSMCore
import HSMImport
import HSMRemotes
import HSMStore
import HSMSystem
import Logging
import StoreTestSupport
import TestSupport
import Testing

@testable import HSMDaemon

/// An imported lower directory of a few files, and a daemon with a fake front end on it.
final class DaemonFixture {
    static let log = Logger.silent
    let folder: String
    var lower: String { folder + "/lower" }
    let registry: RuntimeDirectory
    let builder: FakeBuilder
    let daemon: Daemon
    let frontEnd: FakeFrontEnd

    /// - Parameters:
    ///   - recorded: what an import has recorded of mounts.
    ///   - isImported: there was an import.
    init(recorded: [String: String] = [:], isImported: Bool = true, builder: FakeBuilder = FakeBuilder()) throws {
        folder = try Self.lowerDirectory(recorded, isImported: isImported)
        self.builder = builder
        registry = RuntimeDirectory(path: BytePath(folder + "/registry"))
        do {
            let lower = BytePath(folder + "/lower")
            daemon = try Daemon(
                DaemonConfiguration(lower: lower, mountpoint: lower), frontEnd: builder,
                openRemote: { _ in FakeRemote.empty() }, registry: registry, failures: RecentFailures(), log: Self.log)
            frontEnd = try #require(builder.frontEnd)
        } catch {
            system("rm -rf \(folder)")
            throw error
        }
    }

    deinit {
        // Its threads end too.
        daemon.stop()
        daemon.run()
        system("rm -rf \(folder)")
    }

    /// A new folder with a lower directory in it, into which the files `a`, `b` and `dir/c` were imported.
    static func lowerDirectory(
        _ recorded: [String: String] = [:], isImported: Bool = true
    ) throws -> String {
        guard geteuid() == 0 else { throw StoreError("the daemon's tests want root") }
        let directory = try TemporaryDirectory()
        let folder = directory.path
        let (lower, source) = (folder + "/lower", folder + "/source")
        directory.shell("mkdir -p lower source/dir && cd source && echo a >a && echo b >b && echo c >dir/c")
        guard isImported else {
            _ = try Store.open(lower.utf8CString.map { $0 }, create: true, purpose: "testing", log: log)
            return folder
        }
        let location = try RemoteLocation(BytePath(source))
        var options = Importer.Options()
        options.mountSettings = recorded
        let importer = Importer(
            location, try location.open(), into: Array(lower.utf8), options: options, log: log)
        #expect(try importer.run { _ in }.isClean)
        return folder
    }

    func inode(_ name: String) throws -> UInt64 {
        try UInt64(Descriptor.open("\(lower)/.passhsm/tree/\(name)", O_RDONLY).stat().st_ino)
    }

    var client: ControlClient {
        get throws { ControlClient(try #require(try registry.daemon(forLower: BytePath(lower))), in: registry) }
    }

    func connect() throws -> LocalSocket {
        let folder = try Descriptor.open("\(folder)/registry/\(getpid())", O_RDONLY)
        return try LocalSocket.connect("control.sock", in: folder, until: Deadline(seconds: 20))
    }

    /// Sends a line; the reply to it.
    func ask(_ line: String, _ socket: LocalSocket) throws -> ControlReply {
        try socket.write(Array(line.utf8) + [10], until: Deadline(seconds: 20))
        let answer = try socket.readLine(limit: 1 << 20, until: Deadline(seconds: 20))
        return try ControlJSON.decode(ControlReply.self, from: answer)
    }

    /// Runs `body` on a thread; the value waits for its end.
    static func start(_ body: @escaping @Sendable () -> Void) throws -> () throws -> Void {
        let hasEnded = Flag()
        try startThread(name: "test") {
            body()
            hasEnded.set()
        }
        return { try until("the end") { hasEnded.isSet } }
    }
}
