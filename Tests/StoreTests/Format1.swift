import Glibc
import HSMCore
import HSMSystem

@testable import HSMStore

/// Writes records as the program did before version 2 of their format.
extension Record {
    static let longestFormat1Key = 1024

    /// The attribute's value; a longer key is left out, and belongs in `keys/`.
    func encodedAsFormat1() -> [UInt8] {
        var writer = ByteWriter()
        writer.put(Array("PHSM".utf8))
        writer.put(UInt16(1))
        writer.put(UInt16(0))
        writer.put(UInt32(0))
        writer.put(state.rawValue)
        writer.put(UInt8(granuleSize.trailingZeroBitCount))
        writer.put(flags.rawValue)
        writer.put(epoch)
        writer.put(Int64(object.size))
        writer.put(Int64(limit))
        writer.put(Int64(modified.seconds))
        writer.put(UInt32(modified.nanoseconds))
        writer.put(identity.type)
        for counted in [identity.bytes, object.version.bytes, Array(lastError.utf8)] {
            writer.put(UInt8(counted.count))
            writer.put(counted)
        }
        if object.key.bytes.count > Self.longestFormat1Key {
            writer.put(UInt16(0xffff))
        } else {
            writer.put(UInt16(object.key.bytes.count))
            writer.put(object.key.bytes)
        }
        if let digest = object.digest {
            writer.put(digest.algorithm.rawValue)
            writer.put(digest.bytes)
        }
        writer.replace(at: 8, with: CRC32C.of(writer.bytes))
        return writer.bytes
    }
}

extension StoreFixture {
    /// Writes the record of `name` anew as the program did before, with a key in `keys/` when it is long.
    func writeAsFormat1(_ record: Record, to name: String = "file") throws {
        if record.object.key.bytes.count > Record.longestFormat1Key {
            mkdir("\(path)/.passhsm/keys", 0o700)
            var writer = ByteWriter()
            writer.put(CRC32C.of(record.object.key.bytes))
            writer.put(record.object.key.bytes)
            let path = "\(path)/.passhsm/keys/\(record.identity.name)"
            try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600).put(writer.bytes, at: 0)
        }
        try set(record.encodedAsFormat1(), of: name)
    }

    /// The record's attribute.
    func value(_ name: String = "file") throws -> [UInt8] {
        try ExtendedAttributes.value(store.attribute, of: "\(tree)/\(name)")
    }

    func set(_ value: [UInt8], of name: String = "file") throws {
        var failure: Errno?
        value.withUnsafeBytes { bytes in
            do throws(Errno) {
                try ExtendedAttributes.set(store.attribute, of: "\(tree)/\(name)", to: bytes)
            } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

extension [UInt8] {
    /// From hexadecimal digits.
    init(hexadecimal text: String) {
        let digits = Array<Character>(text)
        self = stride(from: 0, to: digits.count, by: 2).compactMap { UInt8(String(digits[$0...$0 + 1]), radix: 16) }
    }

    var hexadecimal: String { map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }
}
