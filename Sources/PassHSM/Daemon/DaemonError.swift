/// Why a mount cannot be made or taken away: one line for the user.
package struct DaemonError: Error, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
