/// Converts arbitrary bytes to text and back, so that a file name that is not valid UTF-8 survives APIs that take a
/// `String`.
///
/// Valid UTF-8 is kept as it is. Every other byte B becomes the private-use scalar U+10FF00 + B. Where the text itself
/// contains one of those scalars, its four bytes are treated as invalid, so that decoding is unambiguous.
package enum ArgumentText {
    private static let base: UInt32 = 0x10_FF00
    private static let stand = base + 0x80...base + 0xFF

    /// The text that stands for `bytes`.
    package static func encode(_ bytes: some Collection<UInt8>) -> String {
        var text = String.UnicodeScalarView()
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            let (scalar, length) = firstScalar(of: rest)
            if let scalar, !stand.contains(scalar.value) {
                text.append(scalar)
            } else {
                for byte in rest.prefix(length) {
                    guard let scalar = Unicode.Scalar(base + UInt32(byte)) else { continue }
                    text.append(scalar)
                }
            }
            rest = rest.dropFirst(length)
        }
        return String(text)
    }

    /// The bytes that `text` stands for: the reverse of ``encode(_:)``.
    package static func decode(_ text: String) -> [UInt8] {
        var bytes = [UInt8]()
        for scalar in text.unicodeScalars {
            if stand.contains(scalar.value) {
                bytes.append(UInt8(scalar.value - base))
            } else {
                bytes.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
            }
        }
        return bytes
    }

    /// The text for people, on one line. Bytes that are not UTF-8, and characters that a terminal obeys instead of
    /// showing, become `\xNN`. Applying it twice changes nothing more.
    package static func readable(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if stand.contains(scalar.value) || isObeyed(scalar) {
                for byte in decode(String(scalar)) { result.append(contentsOf: escape(byte).unicodeScalars) }
            } else {
                result.append(scalar)
            }
        }
        return String(result)
    }

    /// Whether a terminal obeys the scalar: control characters, ends of lines and paragraphs, and changes of the text's
    /// direction.
    private static func isObeyed(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: true
        default: scalar.properties.isBidiControl
        }
    }

    private static func escape(_ byte: UInt8) -> String {
        "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }

    /// The scalar that `bytes` begin with, and its length. Without a valid one, nil and the number of bytes to skip.
    private static func firstScalar(of bytes: ArraySlice<UInt8>) -> (Unicode.Scalar?, Int) {
        var iterator = bytes.makeIterator()
        var parser = Unicode.UTF8.ForwardParser()
        switch parser.parseScalar(from: &iterator) {
        case .valid(let encoded): return (UTF8.decode(encoded), encoded.count)
        case .error(let length): return (nil, max(length, 1))
        case .emptyInput: return (nil, 1)
        }
    }
}
