import Glibc
import HSMControl
import HSMSystem

/// A FUSE mount of this program's of which this user's registry has no running daemon: the daemon is gone, or it is another
/// user's.
package struct UnregisteredMount {
    package let entry: MountEntry

    /// The topmost mount at `mountpoint` (canonical), when it is such a one.
    package static func at(_ mountpoint: BytePath) throws(Errno) -> UnregisteredMount? {
        guard let entry = try MountTable.entry(at: mountpoint), entry.type == MountEntry.fuseType else { return nil }
        return UnregisteredMount(entry: entry)
    }

    /// Whether this user mounted it.
    var isOwn: Bool { entry.owner == nil || entry.owner == OwnProcess.user }

    /// Whether the kernel says that the daemon is gone. One that is there and does not answer is not gone.
    ///
    /// Asks for the file system's numbers, which the kernel never answers from memory, on a thread of its own: a daemon that
    /// hangs would hang the asker.
    var isDead: Bool {
        let (finished, path) = (Condition(), entry.mountpoint)
        let answer = Answer()
        let isAsked: Void? = try? startThread(name: "probe") {
            var numbers = statvfs()
            let error = path.cString.withUnsafeBufferPointer { text in
                text.baseAddress.map { statvfs($0, &numbers) == 0 ? 0 : errno } ?? EINVAL
            }
            finished.lock()
            answer.error = error
            finished.unlock()
            finished.broadcast()
        }
        // Without a thread nothing is known.
        if isAsked == nil { return false }
        let end = ContinuousClock.now + .seconds(2)
        finished.lock()
        defer { finished.unlock() }
        while answer.error == nil && ContinuousClock.now < end { _ = finished.wait(seconds: 0.1) }
        // ECONNABORTED: asked while the connection was being torn down.
        return [ENOTCONN, ECONNABORTED].contains(answer.error ?? 0)
    }

    /// Guarded by the condition's lock.
    private final class Answer: @unchecked Sendable {
        var error: Int32?
    }

    /// Why nothing can be asked of it: one line for the user.
    package var explanation: String {
        let (place, owner) = (entry.mountpoint, entry.owner.map { "user \($0)" } ?? "another user")
        if isDead {
            let way = isOwn ? "`passhsm unmount` takes the mount away" : "it was \(owner)'s, who can unmount it"
            return "the daemon of \(place) is gone; \(way)"
        }
        if !isOwn { return "\(place) is a mount of \(owner), whose daemon answers nobody else: ask as \(owner)" }
        return "the daemon of \(place) runs, and is not in this user's registry: was XDG_RUNTIME_DIR another one then?"
    }

    /// Takes away this user's dead mounts that are in the way of mounting `lower` on `mountpoint`: at that place, and those
    /// of the same lower directory elsewhere. All paths are canonical.
    ///
    /// - Parameter taken: told each mount point.
    package static func takeAway(
        lower: BytePath, mountpoint: BytePath, except daemons: [DaemonInfo], _ taken: (BytePath) -> Void
    ) throws {
        let served = Set(daemons.filter(\.isAlive).map(\.mountpoint))
        // Of mounts over each other the last one is on top.
        for entry in try MountTable.entries().reversed() where entry.type == MountEntry.fuseType {
            guard entry.mountpoint == mountpoint || entry.source == BytePath("\(lower)"),
                !served.contains(entry.mountpoint), let top = try at(entry.mountpoint), top.isOwn, top.isDead
            else { continue }
            try Unmounter.unmountAbandoned(entry.mountpoint)
            taken(entry.mountpoint)
        }
    }
}
