import HSMCore
import HSMFuse
import Logging

/// The types of the options. If a lower module acts upon an option, that module declares its type, and this file parses
/// it.
extension FillPolicy: OptionValue {}
extension FuseMount.Cache: OptionValue {}
extension FuseMount.OnChange: OptionValue {}
extension RemoteHealth.Offline: OptionValue {}

/// When content is compared with the digest that the remote gives for it.
package enum VerifyPolicy: String, CaseIterable, OptionValue {
    /// After the last byte has arrived.
    case complete
    /// Before users see the first byte.
    case strict
}

/// The way in which the kernel reports accesses.
package enum FrontEndOption: String, CaseIterable, OptionValue {
    case fuse
    /// Pre-content events.
    case fanotify
    /// Fanotify where it is as safe as FUSE, else FUSE.
    case auto
}

/// The time that reads and opens wait while no data arrives.
package struct FillDeadline: SecondsOption {
    package static let range = 1...86_400
    package let seconds: Int
    package init(checked seconds: Int) { self.seconds = seconds }
}

/// The time that readers wait for a new daemon when theirs dies (fanotify).
package struct TakeoverTime: SecondsOption {
    package static let range = 0...86_400
    package let seconds: Int
    package init(checked seconds: Int) { self.seconds = seconds }
}

/// The least severe lines that are logged.
package enum LogLevel: String, CaseIterable, OptionValue {
    case error, warning, info, debug

    package var level: Logger.Level {
        switch self {
        case .error: .error
        case .warning: .warning
        case .info: .info
        case .debug: .debug
        }
    }
}
