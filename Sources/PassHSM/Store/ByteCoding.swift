import CChecksum

/// Little-endian fields of the on-disk formats.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(_ value: some Sequence<UInt8>) { bytes.append(contentsOf: value) }

    /// Seven bits a byte, lowest first; the highest bit says that more follow (LEB128).
    mutating func putVariable(_ value: UInt64) {
        var rest = value
        while rest > 0x7f {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Appends as ``putVariable(_:)`` does; small numbers of either sign take few bytes.
    mutating func putVariable(signed value: Int64) { putVariable(UInt64(bitPattern: value << 1 ^ value >> 63)) }

    /// Overwrites four bytes at `offset`.
    mutating func replace(at offset: Int, with value: UInt32) {
        withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(offset..<offset + 4, with: $0) }
    }
}

/// Reads what ``ByteWriter`` wrote. Each method returns nil past the end.
struct ByteReader {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: some Collection<UInt8>) { rest = ArraySlice(bytes) }

    mutating func take<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value? {
        guard let bytes = take(MemoryLayout<Value>.size) else { return nil }
        return bytes.reversed().reduce(Value.zero) { value, byte in
            MemoryLayout<Value>.size == 1
                ? Value(truncatingIfNeeded: byte) : value << 8 | Value(truncatingIfNeeded: byte)
        }
    }

    /// Reads what ``ByteWriter/putVariable(_:)`` wrote; nil also for a number of more than 64 bits, and for one with a
    /// shorter form.
    mutating func takeVariable() -> UInt64? {
        var value: UInt64 = 0
        for place in 0..<10 {
            guard let byte = take(UInt8.self) else { return nil }
            let bits = UInt64(byte & 0x7f)
            if place == 9 && bits > 1 { return nil }
            value |= bits << UInt64(7 * place)
            if byte < 0x80 { return byte == 0 && place > 0 ? nil : value }
        }
        return nil
    }

    mutating func takeVariableSigned() -> Int64? {
        guard let value = takeVariable() else { return nil }
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    /// Reads a count in one byte, and then that many bytes.
    mutating func takeCounted() -> ArraySlice<UInt8>? {
        guard let count = take(UInt8.self) else { return nil }
        return take(Int(count))
    }

    /// Reads all bytes that are left.
    mutating func takeRest() -> ArraySlice<UInt8> {
        defer { rest = [] }
        return rest
    }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= rest.count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }
}

enum CRC32C {
    /// CRC32C of `bytes` (RFC 3720), continuing `crc`.
    static func of(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32 = 0) -> UInt32 {
        passhsm_crc32c(crc, bytes.baseAddress, bytes.count)
    }

    /// Combines the CRC32Cs of consecutive parts into the CRC32C of the whole.
    struct Chain {
        private(set) var value: UInt32 = 0
        /// Length of all parts but the last ones, and the power that belongs to it.
        private let usual: (length: Int, power: UInt32)

        /// - Parameter length: that of most parts.
        init(usualLength length: Int) { usual = (length, passhsm_crc32c_power(UInt64(length))) }

        mutating func append(_ crc: UInt32, length: Int) {
            let power = length == usual.length ? usual.power : passhsm_crc32c_power(UInt64(length))
            value = passhsm_crc32c_combine(value, crc, power)
        }
    }

    static func of(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { of($0) } }
}
