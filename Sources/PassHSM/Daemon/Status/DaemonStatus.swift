import Glibc
import HSMControl
import HSMCore
import HSMStore
import HSMSystem

/// A daemon's reports about itself and about files. All counters and gauges come together here. Safe on every thread.
struct DaemonStatus: Sendable {
    private let parts: FrontEndParts
    private let kind: FrontEndKind
    private let frontEnd: any FrontEnd
    private let failures: RecentFailures
    private let begin = ContinuousClock.now

    init(_ parts: FrontEndParts, _ kind: FrontEndKind, _ frontEnd: any FrontEnd, _ failures: RecentFailures) {
        (self.parts, self.kind, self.frontEnd, self.failures) = (parts, kind, frontEnd, failures)
    }

    /// The answer to `status`.
    func report() -> StatusReport {
        let (configuration, engine) = (parts.configuration, parts.engine)
        var report = StatusReport(
            frontEnd: kind, mountpoint: configuration.mountpoint, lower: configuration.lower,
            source: engine.source.location, cache: cache)
        frontEnd.fill(&report)
        report.uptimeSeconds = Int((ContinuousClock.now - begin).components.seconds)
        report.counters = NamedCounts(engine.counters.snapshot)
        report.waiting = engine.waiting
        report.options = parts.settings.recorded
        report.remote = StatusReport.Remote(engine.remoteHealth)
        report.errors = failures.last
        report.warnings = parts.warning.map { [$0] } ?? []
        return report
    }

    private var cache: String {
        switch kind {
        case .fuse: parts.configuration.cache(parts.settings).rawValue
        // Names and attributes are the lower file system's own.
        case .fanotify: "exclusive"
        }
    }

    /// The answer to `state`: the recorded state of the file at a path below the mount point.
    func state(of path: BytePath) throws(Errno) -> StateReport {
        var walk = FileWalk(top: frontEnd.top, paths: [path.bytes], isRecursive: false, hidden: Store.folder)
        guard let file = walk.next()?.file else { throw Errno(rawValue: ENOENT) }
        var report = StateReport(try frontEnd.state(of: try file.get()))
        report.add(warning: parts.warning)
        return report
    }
}

extension StatusReport.Remote {
    fileprivate init(_ health: RemoteHealth) {
        let outage = health.outage
        let seconds = outage.map { Int((ContinuousClock.now - $0.since).components.seconds) }
        self.init(isDown: health.isDown, seconds: seconds, cause: outage?.cause)
    }
}
