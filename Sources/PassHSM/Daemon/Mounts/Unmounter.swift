import Glibc
import HSMControl
import HSMSystem

/// Takes the mount of one daemon away, and waits for the daemon's end: the next mount then finds the lower directory
/// free.
package struct Unmounter {
    private static let busySeconds = 4.0
    /// The time that users get to go away when they do not wait for the remote.
    private static let usedSeconds = 1.0
    private static let endSeconds = 10.0

    private let daemon: DaemonInfo
    private let client: ControlClient
    private var mountpoint: BytePath { daemon.mountpoint }

    package init(_ daemon: DaemonInfo, in registry: RuntimeDirectory) {
        self.daemon = daemon
        client = ControlClient(daemon, in: registry)
    }

    /// Unmounts only an unused mount. If only users that wait for the remote keep it busy, their requests are made to
    /// fail first.
    package func unmount() throws {
        let process = try openProcess()
        do throws(MountCallError) {
            try MountCall.unmount(mountpoint)
        } catch {
            guard error.code == EBUSY else {
                if error.code == EINVAL {
                    throw DaemonError(
                        "\(mountpoint) is not mounted here, but its daemon (process \(daemon.pid)) is running; "
                            + "--force ends it"
                    )
                }
                throw DaemonError("cannot unmount \(mountpoint): \(error)")
            }
            try drainAndRetry()
        }
        try waitForEnd(of: process)
    }

    /// Fails waiting requests only when nothing else keeps the mount busy: otherwise readers would get errors for
    /// nothing.
    private func drainAndRetry() throws {
        var deadline = Deadline(seconds: Self.usedSeconds)
        var isDrained = false
        while true {
            do throws(MountCallError) {
                try MountCall.unmount(mountpoint)
                return
            } catch {
                guard error.code == EBUSY else { throw DaemonError("cannot unmount \(mountpoint): \(error)") }
            }
            let users = MountUser.of(mountpoint, except: daemon.pid, limit: .max)
            if !isDrained && users.allSatisfy(\.isWaiting) {
                // Once is enough: while this retries, the daemon also refuses the requests that the kernel repeats. A
                // daemon that does not answer does not prevent the unmount.
                _ = try? client.request(.drain, seconds: 2)
                isDrained = true
                deadline = Deadline(seconds: Self.busySeconds)
            }
            if deadline.hasPassed { throw DaemonError("\(mountpoint) is busy\(Self.text(of: users))") }
            usleep(100_000)
        }
    }

    private static func text(of users: [MountUser]) -> String {
        let few = users.filter { !$0.isWaiting } + users.filter(\.isWaiting)
        let list = few.prefix(5).map { "\($0.name) (\($0.pid)) has \($0.path)" }.joined(separator: ", ")
        let rest = users.count > 5 ? " and \(users.count - 5) more" : ""
        return (users.isEmpty ? "" : ": \(list)\(rest)") + "; --force unmounts it anyway"
    }

    /// Ends the mount even while it is in use: the daemon detaches it, answers every request and ends. If the daemon
    /// does not end, it is killed.
    package func force() throws {
        let process = try openProcess()
        do {
            _ = try client.request(.stop(force: true))
            try waitForEnd(of: process)
        } catch {
            guard let process, (try? process.waitForEnd(seconds: 0)) != true else { return }
            // The mount is detached first. The end of the daemon then fails the requests, and no new user meets the
            // dead mount.
            try? MountCall.unmount(mountpoint, lazily: true)
            kill(process.id, SIGKILL)
            try waitForEnd(of: process)
        }
        if try GuardianProcess.endMount(at: mountpoint) { return }
        // A daemon that died before its mount was detached leaves the mount behind.
        if try MountTable.entry(at: mountpoint)?.type == MountEntry.fuseType { try Self.unmountAbandoned(mountpoint) }
    }

    /// Nil when the daemon has ended meanwhile.
    private func openProcess() throws(Errno) -> ProcessHandle? {
        do throws(Errno) {
            return try ProcessHandle(id: daemon.pid, startTime: daemon.startTime)
        } catch {
            if error.rawValue == ESRCH { return nil }
            throw error
        }
    }

    private func waitForEnd(of process: ProcessHandle?) throws {
        guard let process, try !process.waitForEnd(seconds: Self.endSeconds) else { return }
        throw DaemonError(
            "\(mountpoint) is unmounted, but its daemon (process \(daemon.pid)) has not ended within "
                + "\(Int(Self.endSeconds)) s"
        )
    }

    /// Unmounts a mount without a registered daemon. If the daemon is gone, every access to the mount fails with
    /// ENOTCONN. If the daemon runs, the mount is unmounted only while it is not in use.
    package static func unmountAbandoned(_ mountpoint: BytePath) throws {
        if try GuardianProcess.endMount(at: mountpoint) { return }
        guard let entry = try MountTable.entry(at: mountpoint) else {
            throw DaemonError("\(mountpoint) is not mounted")
        }
        guard entry.showsTree else {
            throw DaemonError("\(mountpoint) is a mount of type \(entry.type), not of PassHSM")
        }
        let mount = UnregisteredMount(entry: entry)
        let isDead = mount.isDead
        if !isDead && !mount.isOwn { throw DaemonError(mount.explanation) }
        do throws(MountCallError) {
            do throws(MountCallError) {
                try MountCall.unmount(mountpoint)
            } catch {
                guard isDead else { throw error }
                // Users with an open file of it can only close that file.
                try MountCall.unmount(mountpoint, lazily: true)
            }
        } catch {
            throw DaemonError("cannot unmount \(mountpoint): \(error)")
        }
    }
}
