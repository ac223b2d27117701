import HSMControl
import HSMFuse
import HSMStore
import HSMSystem
import Logging

/// Makes the FUSE front end.
struct FuseBuilder: FrontEndBuilder {
    /// The reason of the choice, for the user.
    var reason = ""

    var kind: FrontEndKind { .fuse }
    var lowerPath: BytePath? { nil }
    func prepare(_ directory: LowerDirectory) throws(Errno) {}
    func remark(with settings: MountSettings) -> String { reason }

    /// Less time than the kernel allows a request: at the kernel's limit the kernel aborts the whole connection.
    func maxWait(log: Logger) -> Duration? {
        var shortest: Duration?
        for name in ["max_request_timeout", "default_request_timeout"] {
            guard let value = SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap({ Int($0) }), value > 0 else {
                continue
            }
            let seconds = max(1, value - 2)
            shortest = min(shortest ?? .seconds(seconds), .seconds(seconds))
            log.warning("fs.fuse.\(name) is \(value) s, so a fill that takes longer than \(seconds) s fails")
        }
        return shortest
    }

    func build(_ parts: FrontEndParts) throws(Errno) -> any FrontEnd {
        let (configuration, settings) = (parts.configuration, parts.settings)
        var options = FuseMount.Options()
        options.fill = settings.fill
        options.onChange = settings.onChange
        options.isStrict = settings.verify == .strict
        options.cache = configuration.cache(settings)
        options.withholdsRights = parts.withholdsRights
        options.allowsPassthrough = settings.passthrough
        options.describe = { [warning = parts.warning] state in
            var report = StateReport(state)
            report.add(warning: warning)
            return (try? ControlJSON.encode(report)) ?? []
        }
        return try FuseMount(
            store: parts.store, engine: parts.engine, source: configuration.lower,
            mountpoint: configuration.mountpoint.cString, options: options, pool: parts.pool, log: parts.log)
    }
}

extension FuseMount: FrontEnd {
    package func fill(_ report: inout StatusReport) {
        let status = status
        report.passthrough = .init(enabled: status.isPassthrough, reason: status.passthroughReason)
        report.requests = NamedCounts(status.requests)
        report.knownInodes = status.knownInodes
        report.openHandles = status.openHandles
        report.backingIDs = status.backingIDs
        report.incompleteFiles = status.incompleteFiles
    }
}
