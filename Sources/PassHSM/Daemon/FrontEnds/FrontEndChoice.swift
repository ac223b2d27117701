import HSMControl
import HSMFanotify
import HSMSystem
import Logging

/// Chooses the front end of a mount.
enum FrontEndChoice {
    /// To be called before the lower directory's files are touched. A mount with a dead daemon may lie over them, and
    /// an open of such a file waits.
    ///
    /// - Throws: `DaemonError` when the requested front end cannot be used.
    static func builder(_ configuration: DaemonConfiguration, log: Logger) throws -> any FrontEndBuilder {
        let registry = RuntimeDirectory.standard()
        let folder = OwnProcess.isMachineRoot ? try registry.usableFolder() : nil
        let address = try folder.map { try GuardianAddress(folder: $0, lower: configuration.lower) }
        let left = address.flatMap { address in (try? GuardianLink(address).tell()) ?? nil }
        if let left, !left.isServed {
            try expectSame(left.mount, configuration)
        }
        var reason = ""
        switch configuration.frontEnd {
        case .fuse: return FuseBuilder()
        case .fanotify: break
        // Only a fanotify daemon leaves a mount to take over.
        case .auto where left != nil: break
        case .auto:
            let support = PreContentSupport(lower: configuration.lower, mayAdministrate: OwnProcess.isMachineRoot)
            if let reservation = support.reservation { return FuseBuilder(reason: "; not fanotify: \(reservation)") }
            reason = "; chosen by auto"
        }
        guard let address else {
            throw DaemonError("--frontend fanotify needs root, outside of user namespaces; use FUSE")
        }
        return FanotifyBuilder(session: try session(configuration, address, log), reason: reason)
    }

    private static func session(
        _ configuration: DaemonConfiguration, _ address: GuardianAddress, _ log: Logger
    ) throws -> FanotifySession {
        let (name, level) = (address.name, configuration.logLevel)
        let start: @Sendable () throws -> Void = { try GuardianProcess.start(name, logLevel: level) }
        if let session = try FanotifySession(takingOver: address, log: log, startGuardian: start) { return session }
        let support = PreContentSupport(lower: configuration.lower, mayAdministrate: true)
        if let obstacle = support.obstacle { throw DaemonError("--frontend fanotify: \(obstacle)") }
        guard support.isWholeFileSystem || configuration.allowsHoles else {
            throw DaemonError(
                "--frontend fanotify: \(configuration.lower) is not the top of its file system: programs in other "
                    + "mount namespaces (containers, services) would read zeros in place of missing content. Use FUSE, "
                    + "or a file system of its own, or accept that with --allow-holes"
            )
        }
        let guarded = GuardedMount(
            mountpoint: configuration.mountpoint, lower: configuration.lower,
            takeoverSeconds: Double(configuration.takeover.seconds), isWholeFileSystem: support.isWholeFileSystem)
        return try FanotifySession(guarded, at: address, log: log, startGuardian: start)
    }

    /// A mount that a daemon has left can only be taken over by fanotify, and at the same mount point.
    private static func expectSame(_ left: GuardedMount, _ configuration: DaemonConfiguration) throws {
        if configuration.frontEnd != .fuse && left.mountpoint == configuration.mountpoint { return }
        throw DaemonError(
            "\(left.mountpoint) is a fanotify mount whose daemon died; mount it there again with --frontend fanotify, "
                + "or remove it with `passhsm unmount`")
    }
}
