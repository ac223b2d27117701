import Glibc
import HSMControl
import HSMSystem

/// A daemon that is in the way of a mount. Either it serves one, or its mount is gone and it still writes its records
/// down: umount(8) does not wait for that.
package struct EndingDaemon {
    private static let endSeconds = 30.0

    private let daemon: DaemonInfo

    package init(_ daemon: DaemonInfo) { self.daemon = daemon }

    /// Returns when the daemon has ended.
    ///
    /// - Throws: `DaemonError` with `refusal`, at once, when the daemon has its mount or gets it meanwhile. Another
    ///   `DaemonError` when the mount is gone and the daemon does not end.
    package func wait(orRefuse refusal: String) throws {
        let deadline = Deadline(seconds: Self.endSeconds)
        while daemon.isAlive {
            if isMounted { throw DaemonError(refusal) }
            if deadline.hasPassed {
                throw DaemonError(
                    "\(daemon.mountpoint) was unmounted, but its daemon (process \(daemon.pid)) has not ended within "
                        + "\(Int(Self.endSeconds)) s; close the files of the mount that are still open")
            }
            usleep(20_000)
        }
    }

    /// Whether the daemon sees its mount. True where that cannot be told.
    private var isMounted: Bool {
        guard let entries = try? MountTable.entries(of: daemon.pid) else { return daemon.isAlive }
        return entries.contains { entry in
            guard entry.mountpoint == daemon.mountpoint else { return false }
            return daemon.frontEnd != .fuse || entry.type == MountEntry.fuseType
        }
    }
}
