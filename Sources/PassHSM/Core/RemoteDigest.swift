/// The digest of an object's whole content, as the remote states it.
package struct RemoteDigest: Hashable, Sendable, CustomStringConvertible {
    /// The raw values are stored in records (FORMAT.md).
    package enum Algorithm: UInt8, Sendable, CaseIterable {
        case sha256 = 1
        case md5 = 2
        case crc32c = 3
        case sha1 = 4
        case crc32 = 5
        case crc64nvme = 6

        /// The length of a digest in bytes.
        package var count: Int {
            switch self {
            case .sha256: 32
            case .md5: 16
            case .sha1: 20
            case .crc32c, .crc32: 4
            case .crc64nvme: 8
            }
        }
    }

    package let algorithm: Algorithm
    /// In the order in which the algorithm's hexadecimal form shows them.
    package let bytes: [UInt8]

    /// Nil when the number of bytes is not the algorithm's.
    package init?(_ algorithm: Algorithm, _ bytes: some Collection<UInt8>) {
        guard bytes.count == algorithm.count else { return nil }
        self.algorithm = algorithm
        self.bytes = Array(bytes)
    }

    /// Parses hexadecimal digits; nil for anything else.
    package init?(_ algorithm: Algorithm, hexadecimal text: some Collection<UInt8>) {
        var bytes: [UInt8] = []
        for (index, character) in text.enumerated() {
            guard let digit = Self.value(of: character) else { return nil }
            if index % 2 == 0 { bytes.append(digit << 4) } else { bytes[bytes.count - 1] |= digit }
        }
        guard text.count == 2 * algorithm.count else { return nil }
        self.init(algorithm, bytes)
    }

    private static func value(of character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// The algorithm's name, a colon and lower-case hexadecimal digits.
    package var description: String {
        let digits = Array("0123456789abcdef".utf8)
        let text = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return "\(algorithm):" + String(decoding: text, as: UTF8.self)
    }
}
