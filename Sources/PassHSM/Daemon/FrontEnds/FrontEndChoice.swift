import HSMControl
import HSMFanotify
import HSMSystem
import Logging

/// Which front end a mount gets, and what fanotify's has to begin with. To be made before the lower directory's files are
/// touched: a mount whose daemon died may lie over them, and whoever opens one waits.
struct FrontEndChoice {
    /// Of fanotify; nil: FUSE.
    let session: FanotifySession?
    /// What the user is told besides.
    let remark: String

    /// What the user is told who has files filled by ranges.
    static let holesWarning =
        "; WARNING: with --fill read, programs that look for holes (cp, tar -S, rsync -S), and loop devices, take what is not "
        + "there for zeros"

    /// - Throws: `DaemonError` when the front end that was asked for cannot be.
    init(_ options: DaemonConfiguration, _ log: Logger) throws {
        let registry = RuntimeDirectory.standard()
        let folder = OwnProcess.isMachineRoot ? try registry.usableFolder() : nil
        let address = try folder.map { try GuardianAddress(folder: $0, lower: options.lower) }
        let left = address.flatMap { address in (try? GuardianLink(address).tell()) ?? nil }
        if let left, !left.isServed {
            try Self.expectSame(left.mount, options)
        }
        var reason = ""
        if options.frontEnd == .auto && left == nil {
            let support = PreContentSupport(lower: options.lower, mayAdministrate: OwnProcess.isMachineRoot)
            reason = support.reservation.map { "; not fanotify: \($0)" } ?? "; chosen: nothing stands against it"
            if support.reservation != nil {
                (session, remark) = (nil, reason)
                return
            }
        } else if options.frontEnd == .fuse {
            (session, remark) = (nil, "")
            return
        }
        guard let address else { throw DaemonError("--frontend fanotify needs the root of the machine") }
        remark = reason
        session = try Self.session(options, address, log)
    }

    private static func session(
        _ options: DaemonConfiguration, _ address: GuardianAddress, _ log: Logger
    ) throws -> FanotifySession {
        let name = address.name
        let start: @Sendable () throws -> Void = { try GuardianProcess.start(name) }
        if let session = try FanotifySession(takingOver: address, log: log, startGuardian: start) { return session }
        let support = PreContentSupport(lower: options.lower, mayAdministrate: true)
        if let obstacle = support.obstacle { throw DaemonError("--frontend fanotify: \(obstacle)") }
        guard support.isWholeFileSystem || options.allowsHoles else {
            throw DaemonError(
                "--frontend fanotify: \(options.lower) is a part of its file system, of which only this mount can be marked: "
                    + "programs in other mount namespaces (containers, services) would read zeros for what is not there. Take "
                    + "FUSE, make it the top of a file system of its own, or accept that with --allow-holes")
        }
        let guarded = GuardedMount(
            mountpoint: options.mountpoint, lower: options.lower, takeoverSeconds: Double(options.takeover.seconds),
            isWholeFileSystem: support.isWholeFileSystem)
        return try FanotifySession(guarded, at: address, log: log, startGuardian: start)
    }

    /// A mount of another kind, or elsewhere, cannot take over what a daemon has left.
    private static func expectSame(_ left: GuardedMount, _ options: DaemonConfiguration) throws {
        if options.frontEnd != .fuse && left.mountpoint == options.mountpoint { return }
        throw DaemonError(
            "\(left.mountpoint) is a fanotify mount whose daemon died: mount it there again with --frontend fanotify, or "
                + "take it away with `passhsm unmount`")
    }
}
