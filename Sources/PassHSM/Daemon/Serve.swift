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
///
/// - Parameters:
///   - handler: where lines are logged to, by the logger's label.
///   - ready: told when the mount can be used, with a line for the user.
/// - Throws: why it cannot be used.
package func serve(
    _ options: DaemonConfiguration, log handler: @escaping @Sendable (String) -> any LogHandler,
    ready: (String) -> Void
) throws {
    let failures = RecentFailures()
    let limit = LogLimit()
    let log = Logger(label: "passhsm") { label in
        LimitedLogHandler(MultiplexLogHandler([handler(label), failures.handler()]), limit)
    }
    // Before the first thread: all inherit it, and only the waiting thread gets the signals.
    let signals = TerminationSignals()
    // What the allocator keeps under load grows with the arenas, which are eight a core otherwise.
    passhsm_limit_arenas(16)
    // Files that the kernel does not read by itself take a descriptor each, and the usual limit is 1,024.
    Capabilities.raiseDescriptorLimit()
    Capabilities.raiseFileSizeLimit()
    Capabilities.reduce()
    let choice = try FrontEndChoice(options, log)
    let path = choice.session?.isInherited == true ? choice.session?.lowerPath : nil
    let store = try Store.open(
        (path ?? options.lower).cString, create: false, purpose: "mounted on \(options.mountpoint)", log: log,
        prepare: { tree throws(Errno) in try choice.session?.prepare(tree) })
    let stored = try store.configuration()
    guard !stored.source.isEmpty else { throw DaemonError("\(options.lower) was never imported") }
    if let warning = stored.warning { log.warning("\(warning)") }
    let settings: MountSettings
    do throws(OptionError) {
        settings = options.settings.over(try MountSettings(recorded: stored.mountSettings))
    } catch { throw DaemonError("the configuration says \(error)") }
    let source = try remote(stored, options)
    var configuration = FillEngine.Configuration()
    // A directory as the remote takes a thread for each fetch, also for those that hang; and there is other work.
    let pool = BlockingPool(
        name: "fill", limit: 2 * configuration.concurrentFetches + configuration.stalledFetches,
        // Buffers that were freed leave gaps: without this, tens of MiB stay until the daemon ends.
        afterWork: (seconds: 10, call: { passhsm_trim_memory() }))
    try pool.prepare()
    openTimers(pool)
    let isFuse = choice.session == nil
    if !isFuse, let option = settings.fuseOption { log.warning("\(option), which is recorded, is for FUSE: left out") }
    configuration.longestWait = isFuse ? longestWait(log) : nil
    let deadline = Duration.seconds(settings.deadline.seconds)
    configuration.deadline = min(deadline, configuration.longestWait ?? deadline)
    configuration.offline = settings.offline
    let engine = FillEngine(source: source, configuration: configuration, pool: pool)
    let isForeign = try RemoteLocation(stored.source).path == nil
    let wiring = Wiring(
        options: options, settings: settings, withholdsRights: isForeign && !settings.trustRemoteRights,
        store: store, engine: engine, pool: pool, log: log, warning: stored.warning)

    let frontEnd = isFuse ? "fuse" : "fanotify"
    let cache = settings.cache(covering: options.lower == options.mountpoint)
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
            throw DaemonError("cannot mount on \(options.mountpoint): the file system has no pre-content events")
        }
        throw DaemonError("cannot mount on \(options.mountpoint): \(error.text)")
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
        report.options = settings.recorded
        report.remote = StatusReport.Remote(engine.gate)
        report.errors = failures.last
        report.warnings = stored.warning.map { [$0] } ?? []
        return report
    }
    let handlers = ControlHandlers(
        status: status, drain: { mount.drain() }, stop: { _ in mount.stop() },
        work: { request, report in FileWork(request, on: mount).run(report) },
        state: { path throws(Errno) in
            var report = try state(of: path, on: mount)
            report.add(warning: stored.warning)
            return report
        })
    let server = try ControlServer(registration, handlers: handlers)
    // The end of the terminal is the end of what was started on it.
    let endsWithTerminal = options.log == nil && isatty(STDERR_FILENO) == 1
    try signals.onArrival(end: { mount.stop() }) {
        if endsWithTerminal { return mount.stop() }
        reload(options, source, log)
    }

    let outside = store.namesOutside()
    let remarks = [stored.warning, store.exposure, outside.isEmpty ? nil : hidden(outside, in: options.lower)]
    let line =
        "mounted \(options.lower) on \(options.mountpoint) (\(frontEnd), \(answer))\(choice.remark)"
        + (isFuse || settings.fill != .read ? "" : FrontEndChoice.holesWarning)
        + remarks.compactMap { $0.map { "; WARNING: \($0)" } }.joined()
    log.info("\(line)")
    ready(line)
    mount.run()
    server.stop()
}

/// What the user is told of names that lie beside the tree.
private func hidden(_ names: [[UInt8]], in lower: BytePath) -> String {
    let some = names.sorted { $0.lexicographicallyPrecedes($1) }.prefix(3).map { BytePath($0).description }
    let list = some.joined(separator: ", ") + (names.count > some.count ? " and \(names.count - some.count) more" : "")
    return "\(list) in \(lower) itself, which somebody made there while nothing was mounted, is in no mount; "
        + "`passhsm import` moves it in"
}

/// What is recorded of the file at a path below the mount point.
private func state(of path: BytePath, on mount: some FrontEnd) throws(Errno) -> StateReport {
    var walk = FileWalk(top: mount.top, paths: [path.bytes], isRecursive: false, hidden: Store.folder)
    guard let file = walk.next()?.file else { throw Errno(rawValue: ENOENT) }
    return StateReport(try mount.state(of: try file.get()))
}

/// Lets Swift's concurrency open what its timers need, which ends the process when it gets no descriptor later.
private func openTimers(_ pool: BlockingPool) {
    pool.wait {
        try? await Task.sleep(for: .nanoseconds(1), clock: .continuous)
        try? await Task.sleep(for: .nanoseconds(1), clock: .suspending)
    }
}

/// What SIGHUP asks for: the log is opened again by its name, and credentials are looked for before they are next used.
private func reload(_ options: DaemonConfiguration, _ source: any RemoteSource, _ log: Logger) {
    source.lookAnew()
    guard let path = options.log else { return log.info("credentials are looked for anew") }
    do throws(Errno) {
        let file = try DaemonLog.open(path)
        for number in [STDOUT_FILENO, STDERR_FILENO] { _ = try check { dup2(file.raw, number) } }
        log.info("the log was opened again, and credentials are looked for anew")
    } catch {
        log.error("the log \(path) cannot be opened again: \(error.text)")
    }
}

/// The remote tier that the lower directory was imported from.
private func remote(_ configuration: StoreConfiguration, _ options: DaemonConfiguration) throws -> any RemoteSource {
    let source = try RemoteTier(configuration).open()
    return options.simulate.map { SimulatedSource(source, $0) } ?? source
}

/// How long a request may take: less than the kernel allows, which would abort the whole connection. Nil: it allows all.
private func longestWait(_ log: Logger) -> Duration? {
    var longest: Duration?
    for name in ["max_request_timeout", "default_request_timeout"] {
        guard let value = SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap({ Int($0) }), value > 0 else { continue }
        let seconds = max(1, value - 2)
        longest = min(longest ?? .seconds(seconds), .seconds(seconds))
        log.warning("fs.fuse.\(name) is \(value) s: a fill that takes longer than \(seconds) s fails")
    }
    return longest
}

extension StatusReport.Remote {
    fileprivate init(_ gate: RemoteGate) {
        let outage = gate.outage
        let seconds = outage.map { Int((ContinuousClock.now - $0.since).components.seconds) }
        self.init(isDown: gate.isDown, seconds: seconds, cause: outage?.cause)
    }
}

/// What front ends are made of.
private struct Wiring {
    let options: DaemonConfiguration
    let settings: MountSettings
    /// The remote may be anybody's: the mount is nosuid and nodev.
    let withholdsRights: Bool
    let store: Store
    let engine: FillEngine
    let pool: BlockingPool
    let log: Logger
    /// Of the directory as a whole.
    let warning: String?

    func startFuse(_ cache: FuseMount.Cache) throws(Errno) -> (any FrontEnd, String) {
        var fuse = FuseMount.Options()
        fuse.fill = settings.fill
        fuse.onChange = settings.onChange
        fuse.isStrict = settings.verify == .strict
        fuse.cache = cache
        fuse.withholdsRights = withholdsRights
        fuse.allowsPassthrough = settings.passthrough
        fuse.describe = { [warning] state in
            var report = StateReport(state)
            report.add(warning: warning)
            return (try? ControlJSON.encode(report)) ?? []
        }
        let mount = try FuseMount(
            store: store, engine: engine, mountpoint: options.mountpoint.cString, options: fuse, pool: pool, log: log)
        return (mount, try mount.start(source: "\(options.lower)"))
    }

    func startFanotify(_ session: FanotifySession) throws(Errno) -> (any FrontEnd, String) {
        var fanotify = FanotifyMount.Options()
        fanotify.fill = settings.fill
        fanotify.isStrict = settings.verify == .strict
        fanotify.withholdsRights = withholdsRights
        fanotify.ignoresNothing = options.ignoresNothing
        let mount = FanotifyMount(
            session: session, store: store, engine: engine, mountpoint: options.mountpoint, options: fanotify,
            pool: pool, log: log)
        return (mount, try mount.start())
    }
}
