import Glibc
import HSMControl
import HSMFanotify
import HSMSystem
import Logging

/// The guardian's process, which holds the parts that must outlive a daemon of the fanotify front end. The daemon
/// starts it as `passhsm guard NAME`.
package enum GuardianProcess {
    /// The command's name.
    package static let command = "guard"

    /// Serves as the guardian at the socket `name` of the registry, in this process, until it is not needed any more.
    package static func run(_ name: String, log: Logger) throws {
        _ = chdir("/")
        let address = GuardianAddress(folder: try RuntimeDirectory.standard().folder(), name: name)
        try Guardian(address, log: log).run()
    }

    /// Starts a guardian in the background. It logs to this process's stderr.
    static func start(_ name: String, logLevel: LogLevel) throws {
        let null = try Descriptor.open("/dev/null", O_RDWR)
        let errors = try Descriptor.open("/proc/self/fd/2", O_WRONLY | O_APPEND)
        let child = try ChildProcess(
            program: OwnProcess.program,
            arguments: ["passhsm", command, name, "--log-level", logLevel.text].map { BytePath($0) },
            descriptors: .init(input: null, output: null, errors: errors), newSession: true)
        // Reaps the guardian when it ends. Without a thread it stays a zombie until this process ends.
        try? startThread(name: "guard-end") { _ = try? child.wait() }
    }

    /// Ends the mount at `mountpoint` (canonical) of a fanotify daemon that is gone. The mount's guardian denies every
    /// waiting access, and ends with the mount. False when there is no such mount.
    package static func endMount(at mountpoint: BytePath) throws -> Bool {
        guard OwnProcess.isMachineRoot, let folder = try? RuntimeDirectory.standard().folder() else { return false }
        for address in GuardianAddress.all(in: folder) {
            guard let link = try? GuardianLink(address), let left = (try? link.tell()) ?? nil, !left.isServed,
                left.mount.mountpoint == mountpoint
            else { continue }
            try link.end()
            // Users with files still open are denied missing content.
            try? MountTable.unmount(mountpoint, lazily: true)
            let deadline = Deadline(seconds: 1)
            while !deadline.hasPassed && (try? GuardianLink(address)) != nil { usleep(20_000) }
            return true
        }
        return false
    }
}
