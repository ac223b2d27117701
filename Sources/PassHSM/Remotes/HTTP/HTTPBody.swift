import HSMCore
import NIOCore

/// The rest of an answer's body. Only one task at a time may use it. Dropping it before its end closes its connection.
package struct HTTPBody {
    private let exchange: HTTPExchange
    /// Bytes that have arrived and were not passed on yet.
    private var piece = ByteBuffer()
    /// The name of what is read, for errors.
    private let name: String

    package init(_ response: HTTPResponse, name: String) {
        exchange = response.exchange
        self.name = name
    }

    /// Skips `skipped` bytes and passes the next `count` bytes to `deliver`.
    ///
    /// - Parameter endsThere: whether the body has to end there; more bytes are then an error. Otherwise the rest is
    ///   not waited for.
    /// - Throws: `.remoteFailed` when the body breaks off, or has fewer or more bytes; `.cancelled`; errors of
    ///   `deliver`.
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
                throw FillError.remoteFailed("\(name): the server sends more bytes than it said")
            }
            let size = min(piece.readableBytes, rest)
            guard size > 0 else { continue }
            // The closure has no typed error, so the error is carried out by hand.
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
            throw FillError.remoteFailed("\(name): the server sent \(count - rest) of \(count) bytes")
        }
    }

    /// Reads the rest of the body.
    ///
    /// - Parameter willGrow: called once, before more than `small` bytes are held.
    /// - Throws: `.remoteFailed` when there are more than `limit` bytes, or the body breaks off.
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
                throw FillError.remoteFailed("\(name) has more than \(limit) bytes")
            }
        }
        return result
    }

    /// Makes ``piece`` hold at least one byte; false at the end.
    private mutating func fetch() async throws(FillError) -> Bool {
        while piece.readableBytes == 0 {
            if Task.isCancelled { throw .cancelledRead }
            do {
                guard let next = try await exchange.next() else { return false }
                piece = next
            } catch { throw FillError(transport: error, name) }
        }
        return true
    }
}
