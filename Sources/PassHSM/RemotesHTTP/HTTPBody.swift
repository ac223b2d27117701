import HSMCore
import NIOCore

/// What is left of an answer's body. Used by one task at a time; dropped before its end, it ends its connection.
package struct HTTPBody {
    private let exchange: HTTPExchange
    /// What came and was not taken yet.
    private var piece = ByteBuffer()
    /// Of what is read, for errors.
    private let name: String

    package init(_ response: HTTPResponse, name: String) {
        exchange = response.exchange
        self.name = name
    }

    /// Hands `count` bytes behind the first `skipped` to `deliver`.
    ///
    /// - Parameter endsThere: more bytes are an error; otherwise what comes behind is not waited for.
    /// - Throws: `.remoteFailed` when the body breaks off, or has fewer or more bytes; `.cancelled`; what `deliver` throws.
    package mutating func deliver(
        skipping skipped: Int, count: Int, endsThere: Bool,
        to deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        var (skip, rest) = (skipped, count)
        while rest > 0 || endsThere {
            guard try await fetch() else { break }
            let passed = min(skip, piece.readableBytes)
            piece.moveReaderIndex(forwardBy: passed)
            skip -= passed
            if endsThere && piece.readableBytes > rest {
                throw FillError(.io, .remoteFailed, "\(name): the server sends more bytes than it said")
            }
            let size = min(piece.readableBytes, rest)
            guard size > 0 else { continue }
            // The closure is not typed, so that its error is carried out by hand.
            var refusal: FillError?
            piece.withUnsafeReadableBytes { bytes in
                do throws(FillError) { try deliver(UnsafeRawBufferPointer(rebasing: bytes[..<size])) } catch {
                    refusal = error
                }
            }
            if let refusal { throw refusal }
            piece.moveReaderIndex(forwardBy: size)
            rest -= size
        }
        guard rest == 0 else {
            throw FillError(.io, .remoteFailed, "\(name): the server sent \(count - rest) of \(count) bytes")
        }
    }

    /// All that is left.
    ///
    /// - Parameter willGrow: called once, before more than `small` bytes are taken.
    /// - Throws: `.remoteFailed` for more than `limit` bytes, or when it breaks off.
    package mutating func whole(
        limit: Int, small: Int = .max, willGrow: () async -> Void = {}
    ) async throws(FillError) -> [UInt8] {
        var result: [UInt8] = []
        var isSmall = true
        while try await fetch() {
            if isSmall && result.count + piece.readableBytes > small {
                isSmall = false
                await willGrow()
            }
            result += piece.readableBytesView
            piece.clear()
            guard result.count <= limit else {
                throw FillError(.io, .remoteFailed, "\(name) has more than \(limit) bytes")
            }
        }
        return result
    }

    /// Makes ``piece`` hold at least one byte; false at the end.
    private mutating func fetch() async throws(FillError) -> Bool {
        while piece.readableBytes == 0 {
            if Task.isCancelled { throw .cancelledRequest }
            do {
                guard let next = try await exchange.next() else { return false }
                piece = next
            } catch { throw FillError(transport: error, name) }
        }
        return true
    }
}
