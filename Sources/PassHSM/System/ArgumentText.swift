/// Bytes of any value as text and back, so that a file name that is not valid UTF-8 survives APIs that want a `String`.
///
/// Valid UTF-8 stands for itself. Every byte B that is part of none becomes the private-use scalar U+10FF00 + B. Where
/// the text itself has one of those scalars, its four bytes are treated as invalid ones, so that decoding is unambiguous.
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

    /// For people, on one line: bytes that are not UTF-8, and what a terminal does not show but obeys, as `\xNN`. Applied
    /// again, it changes nothing.
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

    /// Control characters, ends of lines and paragraphs, and what changes the direction of the text behind it.
    private static func isObeyed(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: true
        default: scalar.properties.isBidiControl
        }
    }

    private static func escape(_ byte: UInt8) -> String {
        "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }

    /// The scalar that `bytes` begin with and its length; nil and the count of bytes to skip where there is none.
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
