import Glibc
import HSMControl
import HSMSystem

/// A FUSE mount of this program without a running daemon in this user's registry: the daemon is gone, or it belongs to
/// another user.
package struct UnregisteredMount {
    package let entry: MountEntry

    /// The topmost mount at `mountpoint` (canonical), when it is a FUSE mount of this program.
    package static func at(_ mountpoint: BytePath) throws(Errno) -> UnregisteredMount? {
        guard let entry = try MountTable.entry(at: mountpoint), entry.type == MountEntry.fuseType else { return nil }
        return UnregisteredMount(entry: entry)
    }

    /// Whether this user mounted it.
    var isOwn: Bool { entry.owner == nil || entry.owner == OwnProcess.user }

    /// Whether the kernel says that the daemon is gone. A daemon that runs and does not answer is not gone.
    ///
    /// Calls statvfs(3), which the kernel never answers from memory. The call runs on a thread of its own, because a
    /// daemon that hangs would make it hang too.
    var isDead: Bool {
        let (finished, path) = (Condition(), entry.mountpoint)
        let result = ProbeResult()
        let isAsked: Void? = try? startThread(name: "probe") {
            var numbers = statvfs()
            let error = path.cString.withUnsafeBufferPointer { text in
                text.baseAddress.map { statvfs($0, &numbers) == 0 ? 0 : errno } ?? EINVAL
            }
            finished.lock()
            result.error = error
            finished.unlock()
            finished.broadcast()
        }
        // Without a thread the answer is unknown.
        if isAsked == nil { return false }
        let end = ContinuousClock.now + .seconds(2)
        finished.lock()
        defer { finished.unlock() }
        while result.error == nil && ContinuousClock.now < end { _ = finished.wait(seconds: 0.1) }
        // ECONNABORTED: the kernel was tearing the connection down.
        return [ENOTCONN, ECONNABORTED].contains(result.error ?? 0)
    }

    /// Guarded by the condition's lock.
    private final class ProbeResult: @unchecked Sendable {
        var error: Int32?
    }

    /// The reason why the daemon cannot be asked: one line for the user.
    package var explanation: String {
        let (place, owner) = (entry.mountpoint, entry.owner.map { "user \($0)" } ?? "another user")
        if isDead {
            let way = isOwn ? "`passhsm unmount` removes the mount" : "\(owner) can unmount it"
            return "the daemon of \(place) is gone; \(way)"
        }
        if !isOwn { return "\(place) is a mount of \(owner); only \(owner) can ask its daemon" }
        return
            "the daemon of \(place) is running, but this user's registry does not have it; set XDG_RUNTIME_DIR as it "
            + "was when \(place) was mounted"
    }

    /// Takes away this user's dead mounts that are in the way of mounting `lower` on `mountpoint`: those at
    /// `mountpoint`, and those of `lower` elsewhere. All paths are canonical.
    ///
    /// - Parameter taken: called with the mount point of each.
    package static func takeAway(
        lower: BytePath, mountpoint: BytePath, except daemons: [DaemonInfo], _ taken: (BytePath) -> Void
    ) throws {
        let served = Set(daemons.filter(\.isAlive).map(\.mountpoint))
        // If mounts lie over each other, the last one in the table is on top.
        for entry in try MountTable.entries().reversed() where entry.type == MountEntry.fuseType {
            guard entry.mountpoint == mountpoint || entry.source == BytePath("\(lower)"),
                !served.contains(entry.mountpoint), let top = try at(entry.mountpoint), top.isOwn, top.isDead
            else { continue }
            try Unmounter.unmountAbandoned(entry.mountpoint)
            taken(entry.mountpoint)
        }
    }
}
