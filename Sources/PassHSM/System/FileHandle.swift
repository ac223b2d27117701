import CLinux
import Glibc

/// The kernel's handle of a file: inode number and generation (name_to_handle_at(2)). It identifies the file on its
/// file system for as long as the file lives. A value of 48 bytes, so that millions can be kept.
package struct FileHandle: Hashable, Sendable {
    /// The kernel's handle type in the lower 32 bits, and the handle's length in bytes in the upper ones.
    private let kind: UInt64
    private let words: (UInt64, UInt64, UInt64, UInt64, UInt64)
    private static let capacity = 40

    /// The handle of the inode that `descriptor` is open on.
    package init(of descriptor: Descriptor) throws(Errno) { try self.init(of: "", at: descriptor.raw) }

    /// The handle of `name` in `directory`, or of `directory` itself when `name` is empty. A symlink is not followed.
    ///
    /// - Throws: EOPNOTSUPP where the file system has no handles; EOVERFLOW when the handle is longer than 40 bytes
    ///   (those of ext4, xfs, btrfs, tmpfs and overlayfs are shorter).
    package init(of name: UnsafePointer<CChar>, at directory: Int32) throws(Errno) {
        var handle = passhsm_handle()
        do throws(Errno) {
            _ = try check { passhsm_name_to_handle(directory, name, &handle, PASSHSM_AT_EMPTY_PATH) }
        } catch {
            guard error.rawValue == EOPNOTSUPP else { throw error }
            let flags = PASSHSM_AT_EMPTY_PATH | Int32(PASSHSM_AT_HANDLE_FID)
            _ = try check { passhsm_name_to_handle(directory, name, &handle, flags) }
        }
        let size = Int(handle.size)
        guard let made = withUnsafeBytes(of: &handle.bytes, { FileHandle(type: handle.type, bytes: $0[..<size]) })
        else {
            throw Errno(rawValue: EOVERFLOW)
        }
        self = made
    }

    /// Restores a stored handle; nil when it has more than 40 bytes.
    package init?(type: Int32, bytes: some Collection<UInt8>) {
        guard bytes.count <= Self.capacity else { return nil }
        var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
        kind = UInt64(bytes.count) << 32 | UInt64(UInt32(bitPattern: type))
        self.words = words
    }

    package var type: Int32 { Int32(truncatingIfNeeded: kind) }
    /// The handle's length in bytes.
    package var count: Int { Int(kind >> 32) }
    package var bytes: [UInt8] { withUnsafeBytes(of: words) { Array($0[..<count]) } }

    /// The integer at byte `offset`, in the machine's byte order, as kernel file systems store it. Bytes beyond the
    /// handle's end are 0. The integer must lie within the first 40 bytes.
    package func load<Integer: FixedWidthInteger>(at offset: Int, as type: Integer.Type) -> Integer {
        withUnsafeBytes(of: words) { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }

    /// The type and the bytes as lower-case hexadecimal digits: a file name for data about this file.
    package var name: String {
        let digits = Array("0123456789abcdef".utf8)
        var text = [UInt8]()
        for byte in [UInt8(truncatingIfNeeded: type)] + bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The reverse of ``name``.
    package init?(name: some StringProtocol) {
        let digits = Array(name.utf8)
        // Without this check, a sign would be accepted as a digit.
        let areDigits = digits.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
        guard digits.count % 2 == 0, digits.count >= 2, areDigits else { return nil }
        var bytes = [UInt8]()
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index..<index + 2], as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(byte)
        }
        self.init(type: Int32(bytes[0]), bytes: bytes.dropFirst())
    }

    /// open_by_handle_at(2). Needs CAP_DAC_READ_SEARCH.
    ///
    /// - Throws: ESTALE when the file is gone.
    package func open(on mount: Descriptor, _ flags: Int32) throws(Errno) -> Descriptor {
        var handle = passhsm_handle()
        handle.size = UInt32(count)
        handle.type = type
        withUnsafeMutableBytes(of: &handle.bytes) { target in
            withUnsafeBytes(of: words) { target.copyMemory(from: $0) }
        }
        return Descriptor(owning: try check { passhsm_open_by_handle(mount.raw, &handle, flags | O_CLOEXEC) })
    }

    package static func == (left: FileHandle, right: FileHandle) -> Bool {
        left.kind == right.kind && left.words == right.words
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(kind)
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
    }
}
