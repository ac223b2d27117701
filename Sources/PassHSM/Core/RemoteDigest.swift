/// What the remote tier says that the whole content of an object comes to.
package struct RemoteDigest: Hashable, Sendable, CustomStringConvertible {
    /// The numbers are those of the record's format.
    package enum Algorithm: UInt8, Sendable, CaseIterable {
        case sha256 = 1
        case md5 = 2
        case crc32c = 3
        case sha1 = 4
        case crc32 = 5
        case crc64nvme = 6

        /// Bytes of a digest.
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

    /// Nil for a wrong count of bytes.
    package init?(_ algorithm: Algorithm, _ bytes: some Collection<UInt8>) {
        guard bytes.count == algorithm.count else { return nil }
        self.algorithm = algorithm
        self.bytes = Array(bytes)
    }

    /// From hexadecimal digits; nil for anything else.
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

    /// `sha256:` and hexadecimal digits.
    package var description: String {
        let digits = Array("0123456789abcdef".utf8)
        let text = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
        return "\(algorithm):" + String(decoding: text, as: UTF8.self)
    }
}
