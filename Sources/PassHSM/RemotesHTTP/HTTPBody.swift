import AsyncHTTPClient
import HSMCore
import NIOCore

extension HTTPClientResponse {
    /// Hands `count` bytes of the body behind the first `skipped` to `deliver`.
    ///
    /// - Parameters:
    ///   - endsThere: more bytes are an error; otherwise what comes behind is not waited for.
    ///   - name: of what is read, for errors.
    /// - Throws: `.remoteFailed` when the body breaks off, or has fewer or more bytes; `.cancelled`; what `deliver` throws.
    package func deliver(
        skipping skipped: Int, count: Int, endsThere: Bool, name: String,
        to deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        var (skip, rest) = (skipped, count)
        var iterator = body.makeAsyncIterator()
        while rest > 0 || endsThere {
            guard let piece = try await Self.next(&iterator, name) else { break }
            if piece.readableBytes <= skip {
                skip -= piece.readableBytes
                continue
            }
            let size = min(piece.readableBytes - skip, rest)
            if endsThere && piece.readableBytes - skip > rest {
                throw FillError(.io, .remoteFailed, "\(name): the server sends more bytes than it said")
            }
            // The closure is not typed, so that its error is carried out by hand.
            var refusal: FillError?
            piece.withUnsafeReadableBytes { bytes in
                let part = UnsafeRawBufferPointer(rebasing: bytes[skip..<skip + size])
                do throws(FillError) { try deliver(part) } catch { refusal = error }
            }
            if let refusal { throw refusal }
            skip = 0
            rest -= size
        }
        guard rest == 0 else {
            throw FillError(.io, .remoteFailed, "\(name): the server sent \(count - rest) of \(count) bytes")
        }
    }

    /// The whole body.
    ///
    /// - Throws: `.remoteFailed` for more than `limit` bytes, or when it breaks off.
    package func whole(limit: Int, name: String) async throws(FillError) -> [UInt8] {
        var result: [UInt8] = []
        var iterator = body.makeAsyncIterator()
        while let piece = try await Self.next(&iterator, name) {
            result += piece.readableBytesView
            guard result.count <= limit else {
                throw FillError(.io, .remoteFailed, "\(name) has more than \(limit) bytes")
            }
        }
        return result
    }

    private static func next(
        _ iterator: inout Body.AsyncIterator, _ name: String
    ) async throws(FillError) -> ByteBuffer? {
        if Task.isCancelled { throw .cancelledRequest }
        do { return try await iterator.next() } catch { throw FillError(transport: error, name) }
    }
}
