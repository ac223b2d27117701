import HSMCore
import NIOHTTP1

/// The head of an answer, and the body that is still to come.
package struct HTTPResponse: Sendable {
    private let head: HTTPResponseHead
    /// The URL that answered, after redirects.
    package let url: String
    let exchange: HTTPExchange

    init(head: HTTPResponseHead, url: String, exchange: HTTPExchange) {
        self.head = head
        self.url = url
        self.exchange = exchange
    }

    package var status: HTTPResponseStatus { head.status }
    package var headers: HTTPHeaders { head.headers }

    /// The whole body; see ``HTTPBody/whole(limit:)``.
    package func whole(limit: Int, name: String) async throws(FillError) -> [UInt8] {
        var body = HTTPBody(self, name: name)
        return try await body.whole(limit: limit)
    }

    /// The size of the whole object in bytes, from the answer to a request for its first byte.
    ///
    /// - Throws: when the answer does not tell the size; the error of its status.
    package func objectSize(_ key: RemoteKey) async throws(FillError) -> Int {
        let range = headers.first(name: "Content-Range").flatMap { ContentRange($0) }
        switch status.code {
        case 206: if let size = range?.total { return size }
        // The object is empty, even where the answer does not tell a size.
        case 416: return range?.total ?? 0
        case 200:
            guard let length = headers.first(name: "Content-Length") else {
                return try await whole(limit: Self.maxCounted, name: "\(key), whose size the server does not tell,")
                    .count
            }
            if let size = Int(digits: length) { return size }
        default: throw FillError(status: status, headers, key, isConditional: false)
        }
        throw FillError.remoteFailed("\(key): the server does not tell its size")
    }

    /// A body without a length is counted up to this many bytes.
    private static let maxCounted = 1 << 20
}
