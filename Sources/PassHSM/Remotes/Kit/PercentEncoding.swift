/// Percent-encoding: `%` and two hexadecimal digits stand for a byte (RFC 3986, section 2.1).
package enum PercentEncoding {
    /// Encodes every byte except the unreserved characters of RFC 3986, and the slash unless `encodesSlash`.
    package static func encode(_ bytes: some Sequence<UInt8>, encodesSlash: Bool = false) -> String {
        let hexadecimal = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = []
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e: text.append(byte)
            case 0x2f where !encodesSlash: text.append(byte)
            default: text += [0x25, hexadecimal[Int(byte >> 4)], hexadecimal[Int(byte & 15)]]
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Decodes `bytes`; nil when a `%` is not followed by two hexadecimal digits.
    package static func decode(_ bytes: some Collection<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var rest = bytes[...]
        while let byte = rest.popFirst() {
            guard byte == 0x25 else {
                result.append(byte)
                continue
            }
            let digits = String(decoding: rest.prefix(2), as: UTF8.self)
            guard digits.utf8.count == 2, digits.allSatisfy(\.isHexDigit), let value = UInt8(digits, radix: 16) else {
                return nil
            }
            result.append(value)
            rest = rest.dropFirst(2)
        }
        return result
    }
}

extension UInt8 {
    /// Whether it is a letter or a digit of ASCII, or one of `others`.
    func isAlphanumeric(or others: String) -> Bool {
        switch self {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        default: others.utf8.contains(self)
        }
    }
}
