/// Why the location of a remote tier, or the behaviour of a simulated one, cannot be used: one line for people.
package struct LocationError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
