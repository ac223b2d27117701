import HSMFuse
import HSMRemotes
import HSMSystem

/// Everything that a daemon is told when it starts.
package struct DaemonConfiguration: Sendable {
    /// The lower directory: canonical and existing.
    package var lower: BytePath
    /// The mount point: canonical and existing.
    package var mountpoint: BytePath
    package var frontEnd = FrontEndOption.fuse
    package var takeover = TakeoverTime(checked: 30)
    /// The settings of this mount; the store's configuration has recorded the rest.
    package var settings = MountSettings()
    /// Allows fanotify also where only the mount can be marked, and other mount namespaces see holes.
    package var allowsHoles = false
    /// Complete files raise events too (fanotify), for measurements.
    package var ignoresNothing = false
    /// The path of the log of a daemon in the background, absolute; nil in the foreground.
    package var log: BytePath?
    package var logLevel = LogLevel.info
    /// The behaviour that the remote tier simulates, for tests.
    package var simulate: SimulatedBehaviour?

    package init(lower: BytePath, mountpoint: BytePath) { (self.lower, self.mountpoint) = (lower, mountpoint) }

    /// The cache mode of a FUSE mount with `settings` in force. Unless the option is set, a mount that covers its lower
    /// directory is exclusive, because it is the only way to the directory.
    package func cache(_ settings: MountSettings) -> FuseMount.Cache {
        settings.$cache ?? (lower == mountpoint ? .exclusive : settings.cache)
    }

    /// Settings that only FUSE can have turn `auto` into FUSE.
    ///
    /// - Throws: `OptionError` when they contradict fanotify.
    package static func frontEnd(
        _ option: FrontEndOption, with settings: MountSettings
    ) throws(OptionError) -> FrontEndOption {
        guard option != .fuse, let setting = settings.fuseOption else { return option }
        if option == .auto { return .fuse }
        throw OptionError("\(setting) is for FUSE, and does not work with --frontend fanotify")
    }
}
