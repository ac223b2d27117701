/// An option with a default. `settings.fill` is the value in force. `settings.$fill` is the value that was set, or nil.
@propertyWrapper
package struct Setting<Value: OptionValue>: Equatable, Sendable {
    private let usual: Value
    package var projectedValue: Value?

    /// - Parameter wrappedValue: the value while nothing is set.
    package init(wrappedValue: Value) { usual = wrappedValue }

    package var wrappedValue: Value { projectedValue ?? usual }
}
