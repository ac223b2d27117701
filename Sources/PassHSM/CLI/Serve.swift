import CLinux
import Glibc
import HSMControl
import HSMCore
import HSMFanotify
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
    let choice = try FrontEndChoice(options, log)
    let path = choice.session?.isInherited == true ? choice.session?.lowerPath : nil
    let store = try Store.open(
        (path ?? options.lower).cString, create: false, purpose: "mounted on \(options.mountpoint)", log: log,
        prepare: { tree throws(Errno) in try choice.session?.prepare(tree) })
    let source = try remote(of: store, options)
    let pool = BlockingPool(name: "fill", limit: 128)
    var configuration = FillEngine.Configuration()
    let isFuse = choice.session == nil
    configuration.deadline = .seconds(isFuse ? try deadline(options, log) : options.deadlineSeconds)
    let engine = FillEngine(source: source, configuration: configuration, pool: pool)
    let wiring = Wiring(options: options, store: store, engine: engine, pool: pool, log: log)

    let frontEnd = isFuse ? "fuse" : "fanotify"
    let cache = options.cache ?? (options.lower == options.mountpoint ? .exclusive : .shared)
    let registration = try RuntimeDirectory.standard().register(
        DaemonInfo(mountpoint: options.mountpoint, lower: options.lower, frontEnd: frontEnd))
    let mount: any FrontEnd
    let answer: String
    do throws(Errno) {
        if let session = choice.session {
            (mount, answer) = try wiring.startFanotify(session)
        } else {
            (mount, answer) = try wiring.startFuse(cache)
        }
    } catch {
        if !isFuse && error.rawValue == EOPNOTSUPP {
            throw CommandError("cannot mount on \(options.mountpoint): the file system has no pre-content events")
        }
        throw CommandError("cannot mount on \(options.mountpoint): \(error.text)")
    }
    let begin = ContinuousClock.now
    let status: @Sendable () -> StatusReport = {
        var report = StatusReport(
            frontEnd: frontEnd, mountpoint: options.mountpoint, lower: options.lower, source: source.location,
            cache: isFuse ? cache.rawValue : "exclusive")
        mount.fill(&report)
        report.uptimeSeconds = Int((ContinuousClock.now - begin).components.seconds)
        report.counters = NamedCounts(engine.counters.snapshot)
        report.waiting = engine.waiting
        report.errors = failures.last
        return report
    }
    let handlers = ControlHandlers(
        status: status, drain: { mount.drain() }, stop: { _ in mount.stop() },
        work: { request, report in FileWork(request, on: mount).run(report) })
    let server = try ControlServer(registration, handlers: handlers)
    signals.onArrival { mount.stop() }

    let line = "mounted \(options.lower) on \(options.mountpoint) (\(frontEnd), \(answer))\(choice.remark)"
    log.info("\(line)")
    readiness.ready(line)
    mount.run()
    server.stop()
}

/// The remote tier that the lower directory was imported from.
private func remote(of store: Store, _ options: MountOptions) throws -> any RemoteSource {
    let configuration = try store.configuration()
    guard !configuration.source.isEmpty else { throw CommandError("\(options.lower) was never imported") }
    let source = try RemoteTier(configuration).open()
    guard let text = options.simulate else { return source }
    return SimulatedSource(source, try SimulatedBehaviour(text))
}

/// The deadline of fills, in seconds: before the kernel's own, at which it would abort the whole connection.
private func deadline(_ options: MountOptions, _ log: Logger) throws -> Int {
    var seconds = options.deadlineSeconds
    for name in ["max_request_timeout", "default_request_timeout"] {
        guard let value = SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap({ Int($0) }), value > 0, value <= seconds
        else { continue }
        seconds = max(1, value - 2)
        log.warning("fs.fuse.\(name) is \(value) s: fills fail after \(seconds) s")
    }
    return seconds
}

/// What front ends are made of.
private struct Wiring {
    let options: MountOptions
    let store: Store
    let engine: FillEngine
    let pool: BlockingPool
    let log: Logger

    func startFuse(_ cache: MountOptions.Cache) throws(Errno) -> (any FrontEnd, String) {
        var settings = FuseMount.Options()
        settings.fill = FuseMount.Fill(rawValue: options.fill.rawValue) ?? .auto
        settings.onChange = FuseMount.OnChange(rawValue: options.onChange.rawValue) ?? .error
        settings.isStrict = options.verify == .strict
        settings.cache = FuseMount.Cache(rawValue: cache.rawValue) ?? .shared
        settings.allowsPassthrough = options.usesPassthrough
        settings.describe = { state in (try? ControlJSON.encode(StateReport(state))) ?? [] }
        let mount = try FuseMount(
            store: store, engine: engine, mountpoint: options.mountpoint.cString, options: settings, pool: pool,
            log: log)
        return (mount, try mount.start(source: "\(options.lower)"))
    }

    func startFanotify(_ session: FanotifySession) throws(Errno) -> (any FrontEnd, String) {
        var settings = FanotifyMount.Options()
        settings.fill = options.fill == .read ? .read : .open
        settings.isStrict = options.verify == .strict
        let mount = FanotifyMount(
            session: session, store: store, engine: engine, mountpoint: options.mountpoint, options: settings,
            pool: pool, log: log)
        return (mount, try mount.start())
    }
}
