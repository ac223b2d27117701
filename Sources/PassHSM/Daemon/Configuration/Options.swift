import HSMCore
import HSMFuse
import Logging

/// The options' types. Those that a module below acts upon are declared there, and parsed here.
extension FillPolicy: OptionValue {}
extension FuseMount.Cache: OptionValue {}
extension FuseMount.OnChange: OptionValue {}
extension RemoteHealth.Offline: OptionValue {}

/// When content is compared with the digest that the remote gives for it.
package enum VerifyPolicy: String, CaseIterable, OptionValue {
    /// When the last of it has come.
    case complete
    /// Before the first of it is seen.
    case strict
}

/// How the kernel tells of accesses.
package enum FrontEndOption: String, CaseIterable, OptionValue {
    case fuse
    /// Pre-content events.
    case fanotify
    /// Fanotify where it is as safe as FUSE, else FUSE.
    case auto
}

/// How long reads and opens wait for anything to come.
package struct FillDeadline: SecondsOption {
    package static let range = 1...86_400
    package let seconds: Int
    package init(checked seconds: Int) { self.seconds = seconds }
}

/// How long readers wait for a new daemon when theirs dies (fanotify).
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
