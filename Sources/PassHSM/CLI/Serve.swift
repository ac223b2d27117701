import CLinux
import Glibc
import HSMControl
import HSMCore
import HSMFuse
import HSMRemotes
import HSMStore
import HSMSystem
import Logging

/// Serves a mount in this process until it is unmounted, by whomever: wires store, remote, engine, front end and control
/// socket together, and takes them down in order.
func serve(_ options: MountOptions, readiness: Readiness) throws {
    let failures = RecentFailures()
    let log = Logger(label: "passhsm") { label in
        MultiplexLogHandler([StreamLogHandler.standardError(label: label), failures.handler()])
    }
    // Before the first thread: all inherit it, and only the waiting thread gets the signals.
    let signals = TerminationSignals()
    // Files that the kernel does not read by itself take a descriptor each, and the usual limit is 1,024.
    Capabilities.raiseDescriptorLimit()
    let store = try Store.open(
        options.lower.cString, create: false, purpose: "mounted on \(options.mountpoint)", log: log)
    let stored = try store.configuration()
    guard !stored.source.isEmpty else { throw CommandError("\(options.lower) was never imported") }
    let settings = try options.settings.over(stored.mountSettings)
    let source = try remote(stored, options)
    let pool = BlockingPool(name: "fill", limit: 128)
    var configuration = FillEngine.Configuration()
    configuration.deadline = .seconds(try deadline(settings.deadline ?? 60, log))
    configuration.offline = RemoteGate.Offline(rawValue: (settings.offline ?? .block).rawValue) ?? .block
    let engine = FillEngine(source: source, configuration: configuration, pool: pool)

    let cache = settings.cache ?? (options.lower == options.mountpoint ? .exclusive : .shared)
    var mountOptions = FuseMount.Options()
    mountOptions.fill = FuseMount.Fill(rawValue: (settings.fill ?? .auto).rawValue) ?? .auto
    mountOptions.onChange = FuseMount.OnChange(rawValue: (settings.onChange ?? .error).rawValue) ?? .error
    mountOptions.isStrict = settings.verify == .strict
    mountOptions.cache = FuseMount.Cache(rawValue: cache.rawValue) ?? .shared
    mountOptions.allowsPassthrough = settings.passthrough ?? true
    mountOptions.describe = { state in (try? ControlJSON.encode(StateReport(state))) ?? [] }
    let mount = try FuseMount(
        store: store, engine: engine, mountpoint: options.mountpoint.cString, options: mountOptions, pool: pool,
        log: log)

    let registration = try RuntimeDirectory.standard().register(
        DaemonInfo(mountpoint: options.mountpoint, lower: options.lower, frontEnd: "fuse"))
    let answer: String
    do {
        answer = try mount.start(source: "\(options.lower)")
    } catch {
        throw CommandError("cannot mount on \(options.mountpoint): \(error.text)")
    }
    let begin = ContinuousClock.now
    let status: @Sendable () -> StatusReport = {
        var report = StatusReport(
            frontEnd: "fuse", mountpoint: options.mountpoint, lower: options.lower, source: source.location,
            cache: cache.rawValue)
        report.fill(from: mount.status)
        report.uptimeSeconds = Int((ContinuousClock.now - begin).components.seconds)
        report.counters = NamedCounts(engine.counters.snapshot)
        report.waiting = engine.waiting
        report.options = settings.recorded
        report.remote = StatusReport.Remote(engine.gate)
        report.errors = failures.last
        return report
    }
    let handlers = ControlHandlers(
        status: status, drain: { mount.drain() }, stop: { _ in mount.stop() },
        work: { request, report in FileWork(request, on: mount).run(report) })
    let server = try ControlServer(registration, handlers: handlers)
    signals.onArrival { mount.stop() }

    let line = "mounted \(options.lower) on \(options.mountpoint) (fuse, \(answer))"
    log.info("\(line)")
    readiness.ready(line)
    mount.run()
    server.stop()
}

/// The remote tier that the lower directory was imported from.
private func remote(_ configuration: StoreConfiguration, _ options: MountOptions) throws -> any RemoteSource {
    let source = try RemoteTier(configuration).open()
    guard let text = options.simulate else { return source }
    return SimulatedSource(source, try SimulatedBehaviour(text))
}

/// The deadline of fills, in seconds: before the kernel's own, at which it would abort the whole connection.
private func deadline(_ wanted: Int, _ log: Logger) throws -> Int {
    var seconds = wanted
    for name in ["max_request_timeout", "default_request_timeout"] {
        guard let value = SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap({ Int($0) }), value > 0, value <= seconds
        else { continue }
        seconds = max(1, value - 2)
        log.warning("fs.fuse.\(name) is \(value) s: fills fail after \(seconds) s")
    }
    return seconds
}

extension StatusReport.Remote {
    fileprivate init(_ gate: RemoteGate) {
        let outage = gate.outage
        let seconds = outage.map { Int((ContinuousClock.now - $0.since).components.seconds) }
        self.init(isDown: gate.isDown, seconds: seconds, cause: outage?.cause)
    }
}

extension StatusReport {
    fileprivate mutating func fill(from status: FuseMount.Status) {
        passthrough = Passthrough(enabled: status.isPassthrough, reason: status.passthroughReason)
        requests = NamedCounts(status.requests)
        knownInodes = status.knownInodes
        openHandles = status.openHandles
        backingIDs = status.backingIDs
        incompleteFiles = status.incompleteFiles
    }
}
