import Foundation
import Glibc
import TestSupport
import Testing

/// A source, its lower directory, and the mount of it: what nearly every test is about.
final class Mirror {
    let scratch: Scratch
    /// The remote tier.
    let source: String
    /// What is imported: the source itself, unless a server gives it.
    var location: String
    /// More of import's arguments.
    var importArguments: [String] = []
    /// More of the environment of every import and mount.
    var environment: [String: String] = [:]
    /// What answers at ``location``; ends with the mirror.
    var server: AnyObject?
    /// Tells the server that files of ``source`` were replaced, where it has a copy.
    var replaced: (() throws -> Void)?
    let lower: String
    /// The lower files, where the mount does not cover them.
    var tree: String { lower + "/.passhsm/tree" }
    /// Where it is mounted: over the lower directory itself, unless it was asked for apart.
    let mount: String
    private var daemon: pid_t = 0
    private var watchdog: Watchdog?

    /// While this path exists, reads of the remote wait.
    var holdPath: String { scratch.path + "/hold" }
    /// While this path exists, reads of the remote fail.
    var failPath: String { scratch.path + "/fail" }
    /// While such a path exists, reads of the remote are `short`, `long` or `garbage`.
    func spoilPath(_ how: String) -> String { scratch.path + "/" + how }
    var logPath: String { scratch.path + "/log" }

    init(_ scratch: Scratch, apart: Bool = false, lower: String? = nil) throws {
        self.scratch = scratch
        source = scratch.path + "/source"
        location = source
        self.lower = lower ?? scratch.path + "/lower"
        mount = apart ? scratch.path + "/mount" : self.lower
        for path in [source, self.lower, mount] { mkdir(path, 0o755) }
    }

    // MARK: Life

    func importSource(_ arguments: String...) throws {
        let output = try run(
            [Machine.program, "import", location, lower] + importArguments + arguments, environment: environment,
            seconds: 300)
        guard output.code == 0 else { throw Failure("\(output)") }
    }

    /// - Parameters:
    ///   - remote: more of `--simulate`, such as `bandwidth=10M`.
    ///   - limit: seconds after which the mount is taken away by force, so that no test hangs.
    ///   - failpoints: where the daemon fails, as its Failpoint has it.
    ///   - wrapper: a command that runs the program, such as prlimit(1).
    func start(
        _ arguments: [String] = [], remote: String = "latency=0ms", limit: Double = 240, failpoints: String = "",
        by wrapper: [String] = []
    ) throws {
        let spoils = ["short", "long", "garbage"].map { ",\($0)=\(spoilPath($0))" }.joined()
        let simulate = "\(remote),hold=\(holdPath),fail=\(failPath)\(spoils)"
        let output = try run(
            wrapper + [Machine.program, "mount", lower, mount, "--log", logPath, "--simulate", simulate] + arguments,
            environment: environment.merging(["PASSHSM_FAILPOINT": failpoints]) { $1 }, seconds: 60)
        guard output.code == 0 else { throw Failure("\(output)\(log)") }
        daemon = pid_t(try status().pid)
        watchdog = Watchdog(mount: mount, daemon: daemon, seconds: limit)
    }

    var pid: pid_t { daemon }
    var log: String { (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? "" }
    var isMounted: Bool {
        let table = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        return table.split(separator: "\n").contains {
            $0.split(separator: " ").dropFirst().first.map(String.init) == mount
        }
    }

    /// The clean way: the daemon has ended when it returns.
    func stop() throws {
        let output = try passhsm("unmount", mount, seconds: 60)
        guard output.code == 0 else { throw Failure("\(output)\(log)") }
        try awaitEnd()
    }

    /// Waits until the daemon is gone, and nothing is mounted.
    func awaitEnd(seconds: Double = 20) throws {
        try until("the end of the daemon", seconds: seconds) { !isRunning(daemon) }
        forget()
        if isMounted { throw Failure("the daemon ended, and its mount is still there") }
    }

    /// Waits until no file is open, and everything that was fetched is on disk. The kernel tells of a close only after the
    /// program has gone on, and what was fetched is committed a moment later.
    func settle() throws {
        try until("all files to be put down") {
            let status = try status()
            return status.openHandles == 0 && status.incompleteFiles == 0
        }
    }

    /// As a power cut is to the process: what it knew and had not written is lost.
    ///
    /// - Parameter detaching: take away what is left of the mount.
    func killDaemon(detaching: Bool = true) throws {
        Glibc.kill(daemon, SIGKILL)
        try until("the end of the killed daemon") { !isRunning(daemon) }
        forget()
        if detaching { umount2(mount, Int32(MNT_DETACH)) }
    }

    private func forget() {
        watchdog?.stop()
        watchdog = nil
        daemon = 0
    }

    /// Ends whatever still runs, by any means; true when something did.
    func cleanUp() -> Bool {
        guard daemon != 0 || isMounted else { return false }
        unlink(holdPath)
        if daemon != 0 { Glibc.kill(daemon, SIGCONT) }
        if umount2(mount, 0) != 0 { umount2(mount, Int32(MNT_DETACH)) }
        if daemon != 0 {
            let pid = daemon
            if (try? until("its end", seconds: 5) { !isRunning(pid) }) == nil { Glibc.kill(pid, SIGKILL) }
        }
        forget()
        return true
    }

    // MARK: The remote

    func hold() throws { try Data().write(to: URL(fileURLWithPath: holdPath)) }
    func letGo() { unlink(holdPath) }
    func fail(_ on: Bool) throws {
        if on { try Data().write(to: URL(fileURLWithPath: failPath)) } else { unlink(failPath) }
    }

    // MARK: Questions

    func status() throws -> Status {
        let output = try passhsm("status", mount, "--json", seconds: 30)
        guard output.code == 0 else { throw Failure("\(output)\(log)") }
        return try JSONDecoder().decode(Status.self, from: Data(output.out.utf8))
    }

    /// Those in force of a mount with these arguments, made for the question; it is looked at whether they work.
    func optionsOfMount(_ arguments: [String] = []) throws -> [String: String] {
        try start(arguments)
        let status = try status()
        #expect(status.passthrough.enabled == (status.options["passthrough"] != "no"))
        #expect(status.cache == status.options["cache"] ?? (lower == mount ? "exclusive" : "shared"))
        try stop()
        return status.options
    }

    func state(_ name: String, inLower: Bool = false) throws -> FileState {
        let output = try passhsm("state", (inLower ? lower : mount) + "/" + name, "--json", seconds: 30)
        guard output.code == 0 else { throw Failure("\(output)") }
        let all = try JSONDecoder().decode([FileState].self, from: Data(output.out.utf8))
        return try #require(all.first)
    }

    func at(_ name: String) -> String { mount + "/" + name }
    func remote(_ name: String) -> String { source + "/" + name }
}

/// Takes a mount away when its test takes too long: then whoever waits in it gets an error.
private final class Watchdog: @unchecked Sendable {
    // Sendable: `isStopped` is only used under the lock.
    private let lock = NSLock()
    private var isStopped = false

    init(mount: String, daemon: pid_t, seconds: Double) {
        let end = Clock.now + seconds
        Thread.detachNewThread { [weak self] in
            while Clock.now < end {
                usleep(200_000)
                guard let self, !self.lock.withLock({ self.isStopped }) else { return }
            }
            Issue.record("the test took more than \(seconds) s: its mount was taken away")
            Glibc.kill(daemon, SIGKILL)
            umount2(mount, Int32(MNT_DETACH))
        }
    }

    func stop() { lock.withLock { isStopped = true } }
}

/// Gives `body` a mirror, and leaves nothing of it behind. `prepare` fills the source before it is imported.
///
/// - Parameter mounting: the mount's arguments; nil: `body` mounts by itself.
func withMirror(
    apart: Bool = false, mounting arguments: [String]? = [], limit: Double = 240,
    prepare: (Mirror) throws -> Void, _ body: (Mirror) throws -> Void
) throws {
    try withScratch { scratch in
        try Mirror(scratch, apart: apart).live(mounting: arguments, limit: limit, prepare: prepare, body)
    }
}

extension Mirror {
    /// The whole life of a mirror: `prepare`, import, mount, `body`, unmount. Nothing of it is left behind.
    func live(
        mounting arguments: [String]? = [], limit: Double = 240, prepare: (Mirror) throws -> Void,
        _ body: (Mirror) throws -> Void
    ) throws {
        do {
            try prepare(self)
            try importSource()
            if let arguments { try start(arguments, limit: limit) }
            try body(self)
            // A clean end belongs to every test; `body` may have made one already.
            if pid != 0 { try stop() }
        } catch {
            _ = cleanUp()
            throw error
        }
        if cleanUp() { throw Failure("the test left its mount behind") }
    }
}
