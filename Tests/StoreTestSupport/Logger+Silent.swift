import Logging

extension Logger {
    /// Tells nobody anything.
    package static var silent: Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }
}
