/// An option that somebody may have set, and its value where nobody has: `settings.fill` is the value that is in force,
/// `settings.$fill` the one that was set, or nil.
@propertyWrapper
package struct Setting<Value: OptionValue>: Equatable, Sendable {
    private let usual: Value
    package var projectedValue: Value?

    /// - Parameter wrappedValue: the value while nothing is set.
    package init(wrappedValue: Value) { usual = wrappedValue }

    package var wrappedValue: Value { projectedValue ?? usual }
}
