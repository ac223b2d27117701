/// The reason why a daemon could not be found or asked; the text is one line for people.
package struct ControlError: Error, Sendable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        /// No daemon is registered for the path, or the registered one is gone.
        case noDaemon
        /// The daemon is there, but sent no reply in time, or broke the connection.
        case noAnswer
        /// The daemon answered that it would not, or could not.
        case refused
        /// The folder of the registry cannot be used.
        case registry
    }

    package let reason: Reason
    package let description: String

    package init(_ reason: Reason, _ description: String) {
        self.reason = reason
        self.description = description
    }
}
