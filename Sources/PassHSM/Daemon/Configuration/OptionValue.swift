/// A value of an option. Command line and store configuration use the same text for it, and the same parser.
package protocol OptionValue: Equatable, Sendable {
    /// - Throws: `OptionError` for text that is no value of this type.
    init(parsing text: String) throws(OptionError)

    /// The text that ``init(parsing:)`` makes this value of.
    var text: String { get }
}

/// The reason why text is no value of an option, or why options contradict each other: one line for people, behind the
/// option.
package struct OptionError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// An option with a few named values.
extension OptionValue where Self: RawRepresentable & CaseIterable, RawValue == String {
    package init(parsing text: String) throws(OptionError) {
        guard let value = Self(rawValue: text) else {
            throw OptionError("choose one of \(Self.choices.joined(separator: ", "))")
        }
        self = value
    }

    package var text: String { rawValue }

    /// The texts of all values, in the order of their declaration.
    package static var choices: [String] { allCases.map(\.rawValue) }
}

/// A switch: `yes` or `no`.
extension Bool: OptionValue {
    package init(parsing text: String) throws(OptionError) {
        switch text {
        case "yes": self = true
        case "no": self = false
        default: throw OptionError("choose yes or no")
        }
    }

    package var text: String { self ? "yes" : "no" }
}

/// An option that is a number of seconds.
package protocol SecondsOption: OptionValue {
    /// The values that are allowed.
    static var range: ClosedRange<Int> { get }
    var seconds: Int { get }
    /// - Parameter seconds: in ``range``.
    init(checked seconds: Int)
}

extension SecondsOption {
    package init(parsing text: String) throws(OptionError) {
        guard let seconds = Int(text), Self.range.contains(seconds) else {
            throw OptionError("choose a number of seconds from \(Self.range.lowerBound) to \(Self.range.upperBound)")
        }
        self.init(checked: seconds)
    }

    package var text: String { "\(seconds)" }
}
