import HSMCore
import NIOHTTP1

/// The head of an answer, and the body that is still to come.
package struct HTTPResponse: Sendable {
    private let head: HTTPResponseHead
    /// Who answered: where the request was led to.
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

    /// Bytes of the whole object, of which the first was asked for.
    ///
    /// - Throws: when the answer does not tell; what its status stands for.
    package func objectSize(_ key: RemoteKey) async throws(FillError) -> Int {
        let range = headers.first(name: "Content-Range").flatMap { ContentRange($0) }
        switch status.code {
        case 206: if let size = range?.total { return size }
        // There is no first byte, also where the answer says no more than that.
        case 416: return range?.total ?? 0
        case 200:
            guard let length = headers.first(name: "Content-Length") else {
                return try await whole(limit: Self.maxCounted, name: "\(key), whose size the server does not tell,")
                    .count
            }
            if let size = Int(digits: length) { return size }
        default: throw FillError(status: status, headers, key, isConditional: false)
        }
        throw FillError(.io, .remoteFailed, "\(key): the server does not tell its size")
    }

    /// Bytes of a body that are counted where nothing says how many they are.
    private static let maxCounted = 1 << 20
}
