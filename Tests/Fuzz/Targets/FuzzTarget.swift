import HSMSystem

/// A parser of bytes that somebody else wrote, and what holds of it for any bytes at all.
struct FuzzTarget: Sendable, CustomStringConvertible {
    let name: String
    /// Bytes of an input at most.
    var maxLength = 4096
    /// The same for long inputs, which show work that grows with the square of the length; 0: there are none.
    var maxLongLength = 32 << 10
    /// Parses the input. A trap, a hang and memory without end are for the caller to notice.
    ///
    /// - Throws: `FuzzFinding` when something does not hold.
    let check: @Sendable (_ input: [UInt8]) throws -> Void

    var description: String { name }

    /// Of every format that comes from a remote, a user, the kernel or a disk.
    static let all: [FuzzTarget] = remotes + secrets + stored + local

    static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Something that does not hold.
struct FuzzFinding: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws(FuzzFinding) {
    if !condition { throw FuzzFinding(what()) }
}

/// A message for people: as they see it, one line, of a length that a log can bear.
///
/// - Parameter input: what the message is about, of which it may repeat all.
func expectMessage(_ text: String, about input: [UInt8]) throws(FuzzFinding) {
    let isOneLine = ArgumentText.readable(text).unicodeScalars.allSatisfy { scalar in
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }
    try expect(isOneLine, "the message has control characters: \(text.debugDescription)")
    try expect(!text.isEmpty && text.utf8.count <= 600 + 8 * input.count, "a message of \(text.utf8.count) bytes")
}

/// A name in a directory.
func expectName(_ name: [UInt8]) throws(FuzzFinding) {
    let isName = !name.isEmpty && name != [0x2e] && name != [0x2e, 0x2e] && !name.contains(0x2f) && !name.contains(0)
    try expect(isName, "not a name: \(String(decoding: name, as: UTF8.self).debugDescription)")
}

/// Lines of the input as text, without what follows the last newline when there is nothing.
func lines(_ input: [UInt8]) -> [String] {
    input.split(separator: 0x0a, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
}
