import ArgumentParser
import HSMSystem

/// What `serve` is asked to do. Both paths are canonical, and exist.
struct MountOptions {
    /// When an incomplete file is filled.
    enum Fill: String, Sendable, CaseIterable, ExpressibleByArgument {
        /// Small files when they are opened, others by ranges when they are read.
        case auto
        /// The whole file, when it is opened.
        case open
        /// By ranges, when they are read.
        case read
    }

    /// What the kernel may keep of names and attributes.
    enum Cache: String, Sendable, CaseIterable, ExpressibleByArgument {
        /// Others may change the lower directory: short timeouts.
        case shared
        /// Nobody but the mount changes it: long timeouts.
        case exclusive
        /// Nothing.
        case none
    }

    /// What becomes of a file whose remote copy has changed.
    enum OnChange: String, Sendable, CaseIterable, ExpressibleByArgument {
        case error, refetch
    }

    /// When content is compared with the digest that the remote gives for it.
    enum Verify: String, Sendable, CaseIterable, ExpressibleByArgument {
        /// When the last of it has come.
        case complete
        /// Before the first of it is seen.
        case strict
    }

    /// What becomes of reads while the remote is down.
    enum Offline: String, Sendable, CaseIterable, ExpressibleByArgument {
        /// They wait until it is back, or the deadline.
        case block
        /// They fail at once.
        case error
    }

    /// How the kernel tells of accesses.
    enum FrontEnd: String, Sendable, CaseIterable, ExpressibleByArgument {
        case fuse
        /// Pre-content events.
        case fanotify
        /// Fanotify where it is as safe as FUSE, else FUSE.
        case auto
    }

    var frontEnd: FrontEnd
    /// Seconds that readers wait for a new daemon when this one dies (fanotify).
    var takeoverSeconds: Int
    var lower: BytePath
    var mountpoint: BytePath
    var settings: MountSettings
    /// Fanotify where only the mount can be marked, and other mount namespaces see holes.
    var allowsHoles: Bool
    /// Complete files raise events too (fanotify), for measurements.
    var ignoresNothing: Bool
    /// The log of a daemon in the background, absolute; nil in the foreground.
    var log: BytePath?
    /// What the remote tier is made to do, for tests.
    var simulate: String?
}
