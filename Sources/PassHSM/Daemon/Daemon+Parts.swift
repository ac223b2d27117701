import CLinux
import HSMControl
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import Logging

/// Makes the parts below the front end.
extension Daemon {
    static func parts(
        _ configuration: DaemonConfiguration, _ builder: any FrontEndBuilder,
        _ openRemote: (StoreConfiguration) throws -> any RemoteStore, _ log: Logger
    ) throws -> FrontEndParts {
        let store = try Store.open(
            (builder.lowerPath ?? configuration.lower).cString, create: false,
            purpose: "mounted on \(configuration.mountpoint)", log: log,
            prepare: { tree throws(Errno) in try builder.prepare(tree) })
        let stored = try store.configuration()
        guard !stored.source.isEmpty else {
            throw DaemonError("\(configuration.lower) was never imported; run `passhsm import` first")
        }
        if let warning = stored.warning { log.warning("\(warning)") }
        let settings = try settings(configuration, stored, builder.kind, log)
        let given = settings.recorded.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        log.debug("settings: \(given.isEmpty ? "none" : given.joined(separator: " "))")
        let source = try openRemote(stored)
        let pool = try Self.pool()
        var limits = FillEngine.Configuration()
        limits.maxWait = builder.maxWait(log: log)
        let deadline = Duration.seconds(settings.deadline.seconds)
        limits.deadline = min(deadline, limits.maxWait ?? deadline)
        limits.offline = settings.offline
        let engine = FillEngine(
            source: configuration.simulate.map { SimulatedSource(source, $0) } ?? source, configuration: limits,
            pool: pool)
        let isForeign = try RemoteLocation(stored.source).address.isForeign
        return FrontEndParts(
            configuration: configuration, settings: settings,
            withholdsRights: isForeign && !settings.trustRemoteRights, store: store, engine: engine, pool: pool,
            log: log, warning: stored.warning)
    }

    /// The settings of this mount, and the recorded ones where it sets nothing.
    private static func settings(
        _ configuration: DaemonConfiguration, _ stored: StoreConfiguration, _ kind: FrontEndKind, _ log: Logger
    ) throws -> MountSettings {
        let settings: MountSettings
        do throws(OptionError) {
            settings = configuration.settings.over(try MountSettings(recorded: stored.mountSettings))
        } catch { throw DaemonError("the recorded setting \(error) (see .passhsm/config)") }
        if kind != .fuse, let option = settings.fuseOption {
            log.warning("the recorded \(option) is for FUSE, and is ignored")
        }
        return settings
    }

    /// Makes the threads for fills and for all other work that may block.
    private static func pool() throws -> BlockingPool {
        let limits = FillEngine.Configuration()
        // If the remote is a directory, each fetch takes a thread, also a fetch that hangs. Other work needs threads
        // too.
        let pool = BlockingPool(
            name: "fill", limit: 2 * limits.concurrentFetches + limits.stalledFetches,
            // Buffers that were freed leave gaps: without this, tens of MiB stay until the daemon ends.
            afterWork: (seconds: 10, call: { passhsm_trim_memory() }))
        try pool.prepare()
        // Swift's concurrency opens descriptors for its timers at their first use. If it got none later, it would end
        // the process.
        pool.wait {
            try? await Task.sleep(for: .nanoseconds(1), clock: .continuous)
            try? await Task.sleep(for: .nanoseconds(1), clock: .suspending)
        }
        return pool
    }
}
