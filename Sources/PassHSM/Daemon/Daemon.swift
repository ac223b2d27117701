import CLinux
import Glibc
import HSMControl
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import Logging

/// The daemon of one mount: wires store, remote tier, engine, front end, jobs and control socket together, and takes
/// them down in order. Safe on every thread.
///
/// The program has one daemon a process (``DaemonProcess``). The class does not depend on that, so a test can have
/// several.
package final class Daemon: Sendable {
    package let configuration: DaemonConfiguration
    /// The line for the user once the mount can be used.
    package let announcement: String
    private let engine: FillEngine
    private let frontEnd: any FrontEnd
    private let jobs = JobList()
    private let server: ControlServer
    private let log: Logger

    /// The time that jobs get to end before the rest of the daemon does.
    private static let jobSeconds = 5.0

    /// Mounts. From then on the front end answers requests, and the control socket answers clients.
    ///
    /// - Parameters:
    ///   - builder: makes the front end.
    ///   - openRemote: opens the remote tier that a lower directory was imported from.
    ///   - registry: the directory where clients look for the daemon.
    ///   - failures: the errors from `log` that `status` reports.
    /// - Throws: why the mount cannot be used.
    package init(
        _ configuration: DaemonConfiguration, frontEnd builder: any FrontEndBuilder,
        openRemote: (StoreConfiguration) throws -> any RemoteStore = { try $0.openRemote() },
        registry: RuntimeDirectory = .standard(), failures: RecentFailures, log: Logger
    ) throws {
        (self.configuration, self.log) = (configuration, log)
        let parts = try Self.parts(configuration, builder, openRemote, log)
        engine = parts.engine
        let registration = try registry.register(
            DaemonInfo(mountpoint: configuration.mountpoint, lower: configuration.lower, frontEnd: builder.kind))
        let answer: String
        do throws(Errno) {
            frontEnd = try builder.build(parts)
            answer = try frontEnd.start()
        } catch {
            let isLacking = builder.kind == .fanotify && error.rawValue == EOPNOTSUPP
            let cause = isLacking ? "the file system has no pre-content events; use --frontend fuse" : error.text
            throw DaemonError("cannot mount on \(configuration.mountpoint): \(cause)")
        }
        let status = DaemonStatus(parts, builder.kind, frontEnd, failures)
        do {
            server = try ControlServer(registration, handlers: Self.handlers(status, frontEnd, jobs))
        } catch {
            // Otherwise a mount without a daemon would be left.
            frontEnd.stop()
            throw error
        }
        let outside = parts.store.namesOutside()
        let warnings = [
            parts.warning, parts.store.exposure, outside.isEmpty ? nil : Self.hidden(outside, in: configuration.lower),
        ]
        announcement =
            "mounted \(configuration.lower) on \(configuration.mountpoint) (\(builder.kind.rawValue), \(answer))"
            + builder.remark(with: parts.settings)
            + warnings.compactMap { $0.map { "; WARNING: \($0)" } }.joined()
    }

    /// Serves until the mount is gone, no matter how it was unmounted. When this returns, everything is on disk, and
    /// clients get no more answers.
    package func run() {
        frontEnd.waitForUnmount()
        if !jobs.end(seconds: Self.jobSeconds) { log.warning("jobs have not ended within \(Int(Self.jobSeconds)) s") }
        frontEnd.finish()
        server.stop()
    }

    /// Ends the mount even while it is in use; ``run()`` returns soon. May be called again, and by a client.
    package func stop() { Self.stop(frontEnd, jobs) }

    /// The remote reads its files of credentials and the like again before their next use.
    package func lookAnew() { engine.source.lookAnew() }

    private static func stop(_ frontEnd: any FrontEnd, _ jobs: JobList) {
        // Jobs come first: otherwise each of their files would fail when the engine ends.
        jobs.cancel()
        frontEnd.stop()
    }

    private static func handlers(
        _ status: DaemonStatus, _ frontEnd: any FrontEnd, _ jobs: JobList
    ) -> ControlHandlers {
        ControlHandlers(
            status: status.report, drain: frontEnd.drain, stop: { _ in stop(frontEnd, jobs) },
            files: { request, answer in jobs.run(FileJob(request, on: frontEnd), answer) }, state: status.state)
    }

    /// The warning about names that lie beside the tree.
    private static func hidden(_ names: [[UInt8]], in lower: BytePath) -> String {
        let some = names.sorted { $0.lexicographicallyPrecedes($1) }.prefix(3).map { BytePath($0).description }
        let list =
            some.joined(separator: ", ") + (names.count > some.count ? " and \(names.count - some.count) more" : "")
        return "\(list) in \(lower) itself was made there while nothing was mounted, and no mount shows it; "
            + "`passhsm import` moves it in"
    }
}
