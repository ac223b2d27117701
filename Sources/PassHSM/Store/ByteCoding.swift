import CChecksum

/// Little-endian fields of the on-disk formats.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(_ value: some Sequence<UInt8>) { bytes.append(contentsOf: value) }

    /// Overwrites four bytes at `offset`.
    mutating func replace(at offset: Int, with value: UInt32) {
        withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(offset..<offset + 4, with: $0) }
    }
}

/// Reads what ``ByteWriter`` wrote; nil past the end.
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

    static func of(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { of($0) } }
}
