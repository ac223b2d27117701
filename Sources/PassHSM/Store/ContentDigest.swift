import CChecksum
import CCrypto
import Glibc
import HSMCore
import HSMSystem

/// Computes digests of lower files.
enum ContentDigest {
    private static let piece = 1 << 20

    /// Reads from the offset into the buffer until it is full or the content ends; returns the count of bytes.
    typealias Reader = (_ buffer: UnsafeMutableRawBufferPointer, _ offset: Int) throws(Errno) -> Int

    /// The digest of the first `size` bytes that `reader` reads. Of shorter content, it is the digest of the bytes that
    /// there are.
    ///
    /// - Throws: what `reader` throws; ENOTSUP where libcrypto refuses the algorithm.
    static func of(
        size: Int, _ algorithm: RemoteDigest.Algorithm, _ reader: Reader
    ) throws(Errno) -> RemoteDigest {
        let bytes: [UInt8]
        switch algorithm {
        case .sha256: bytes = try hash(EVP_sha256(), size, reader)
        case .md5: bytes = try hash(EVP_md5(), size, reader)
        case .sha1: bytes = try hash(EVP_sha1(), size, reader)
        case .crc32c: bytes = try check(passhsm_crc32c, size, reader)
        case .crc32: bytes = try check(passhsm_crc32, size, reader)
        case .crc64nvme: bytes = try check(passhsm_crc64nvme, size, reader)
        }
        guard let result = RemoteDigest(algorithm, bytes) else { throw Errno(rawValue: ENOTSUP) }
        return result
    }

    private static func hash(
        _ algorithm: OpaquePointer?, _ size: Int, _ reader: Reader
    ) throws(Errno) -> [UInt8] {
        let context = EVP_MD_CTX_new()
        defer { EVP_MD_CTX_free(context) }
        var isGood = EVP_DigestInit_ex(context, algorithm, nil) == 1
        try read(size, reader) { isGood = EVP_DigestUpdate(context, $0.baseAddress, $0.count) == 1 && isGood }
        var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        isGood = EVP_DigestFinal_ex(context, &bytes, &count) == 1 && isGood
        return isGood ? Array(bytes.prefix(Int(count))) : []
    }

    private static func check<Number: FixedWidthInteger>(
        _ function: (Number, UnsafeRawPointer?, Int) -> Number, _ size: Int, _ reader: Reader
    ) throws(Errno) -> [UInt8] {
        var crc: Number = 0
        try read(size, reader) { crc = function(crc, $0.baseAddress, $0.count) }
        return withUnsafeBytes(of: crc.bigEndian) { Array($0) }
    }

    /// Hands the first `size` bytes that `reader` reads to `body`, a piece at a time; fewer when the content is
    /// shorter.
    static func read(
        _ size: Int, _ reader: Reader, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: min(size, piece), alignment: 4096)
        defer { buffer.deallocate() }
        var offset = 0
        while offset < size {
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, size - offset)])
            let count = try reader(part, offset)
            if count == 0 { return }
            body(UnsafeRawBufferPointer(rebasing: part[..<count]))
            offset += count
        }
    }
}
