import HSMFuse
import HSMRemotes
import HSMSystem

/// All that a daemon is told when it starts.
package struct DaemonConfiguration: Sendable {
    /// The lower directory: canonical, and there.
    package var lower: BytePath
    /// Where it is shown: canonical, and there.
    package var mountpoint: BytePath
    package var frontEnd = FrontEndOption.fuse
    package var takeover = TakeoverTime(checked: 30)
    /// What this mount sets; the rest is what the store's configuration has recorded.
    package var settings = MountSettings()
    /// Fanotify where only the mount can be marked, and other mount namespaces see holes.
    package var allowsHoles = false
    /// Complete files raise events too (fanotify), for measurements.
    package var ignoresNothing = false
    /// The log of a daemon in the background, absolute; nil in the foreground.
    package var log: BytePath?
    package var logLevel = LogLevel.info
    /// What the remote tier is made to do, for tests.
    package var simulate: SimulatedBehaviour?

    package init(lower: BytePath, mountpoint: BytePath) { (self.lower, self.mountpoint) = (lower, mountpoint) }

    /// The cache mode of a FUSE mount with `settings` in force. A mount that covers its lower directory is the only way to
    /// it, unless it is set otherwise.
    package func cache(_ settings: MountSettings) -> FuseMount.Cache {
        settings.$cache ?? (lower == mountpoint ? .exclusive : settings.cache)
    }

    /// Settings that only FUSE can have decide `auto`.
    ///
    /// - Throws: `OptionError` when they contradict fanotify.
    package static func frontEnd(
        _ option: FrontEndOption, with settings: MountSettings
    ) throws(OptionError) -> FrontEndOption {
        guard option != .fuse, let setting = settings.fuseOption else { return option }
        if option == .auto { return .fuse }
        throw OptionError("\(setting) is for FUSE, and not with --frontend fanotify")
    }
}
