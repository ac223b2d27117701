import HSMControl
import HSMFanotify
import HSMSystem
import Logging

/// Makes the fanotify front end from a session, which is new or was taken over from a daemon that died.
struct FanotifyBuilder: FrontEndBuilder {
    let session: FanotifySession
    /// The reason of the choice, for the user.
    let reason: String

    var kind: FrontEndKind { .fanotify }
    var lowerPath: BytePath? { session.isInherited ? session.lowerPath : nil }
    func maxWait(log: Logger) -> Duration? { nil }
    func prepare(_ directory: LowerDirectory) throws(Errno) { try session.prepare(directory) }

    func build(_ parts: FrontEndParts) throws(Errno) -> any FrontEnd {
        var options = FanotifyMount.Options()
        options.fill = parts.settings.fill
        options.isStrict = parts.settings.verify == .strict
        options.withholdsRights = parts.withholdsRights
        options.ignoresNothing = parts.configuration.ignoresNothing
        return FanotifyMount(
            session: session, store: parts.store, engine: parts.engine, mountpoint: parts.configuration.mountpoint,
            options: options, pool: parts.pool, log: parts.log)
    }

    func remark(with settings: MountSettings) -> String {
        guard settings.fill == .read else { return reason }
        return reason
            + "; WARNING: with --fill read, programs that look for holes (cp, tar -S, rsync -S), and loop devices, "
            + "take missing content for zeros"
    }
}

extension FanotifyMount: FrontEnd {
    package func fill(_ report: inout StatusReport) {
        let status = status
        report.passthrough = .init(
            enabled: true, reason: "complete files are the lower file system's own; \(status.scope)")
        report.requests = NamedCounts(status.events)
        report.knownInodes = status.knownFiles
        report.incompleteFiles = status.incompleteFiles
    }
}
