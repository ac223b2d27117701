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
}
