import CCrypto
import Glibc
import HSMCore
import HSMSystem

/// Digests of lower files.
enum ContentDigest {
    private static let piece = 1 << 20

    /// The digest of the first `size` bytes of `file`; a file that is shorter has another one than a whole file has.
    ///
    /// - Parameter progress: called with the count of bytes of each piece.
    /// - Throws: what read(2) throws; ENOTSUP where libcrypto refuses the algorithm.
    static func of(
        _ file: Descriptor, size: Int, _ algorithm: RemoteDigest.Algorithm, progress: (Int) -> Void = { _ in }
    ) throws(Errno) -> RemoteDigest {
        let bytes: [UInt8]
        switch algorithm {
        case .sha256: bytes = try hash(EVP_sha256(), file, size, progress)
        case .md5: bytes = try hash(EVP_md5(), file, size, progress)
        case .crc32c:
            var crc: UInt32 = 0
            try read(file, size, progress) { crc = CRC32C.of($0, continuing: crc) }
            bytes = withUnsafeBytes(of: crc.bigEndian) { Array($0) }
        }
        guard let result = RemoteDigest(algorithm, bytes) else { throw Errno(rawValue: ENOTSUP) }
        return result
    }

    private static func hash(
        _ algorithm: OpaquePointer?, _ file: Descriptor, _ size: Int, _ progress: (Int) -> Void
    ) throws(Errno) -> [UInt8] {
        let context = EVP_MD_CTX_new()
        defer { EVP_MD_CTX_free(context) }
        var isGood = EVP_DigestInit_ex(context, algorithm, nil) == 1
        try read(file, size, progress) { isGood = EVP_DigestUpdate(context, $0.baseAddress, $0.count) == 1 && isGood }
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        isGood = EVP_DigestFinal_ex(context, &bytes, &count) == 1 && isGood
        return isGood ? Array(bytes.prefix(Int(count))) : []
    }

    private static func read(
        _ file: Descriptor, _ size: Int, _ progress: (Int) -> Void, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: min(size, piece), alignment: 4096)
        defer { buffer.deallocate() }
        var offset = 0
        while offset < size {
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, size - offset)])
            let count = try file.read(into: part, at: offset)
            if count == 0 { return }
            body(UnsafeRawBufferPointer(rebasing: part[..<count]))
            progress(count)
            offset += count
        }
    }
}
