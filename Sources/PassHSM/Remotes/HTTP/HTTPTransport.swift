import AsyncHTTPClient
import FoundationEssentials
import HSMCore
import NIOCore
import NIOHTTP1
import NIOSSL

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Sends requests over connections that are kept and shared, with HTTP/2 where the server offers it, TLS and proxies.
/// Every method may be called on any thread.
///
/// It sends each request once. The fill engine decides about further attempts.
package final class HTTPTransport: Sendable {
    /// The settings of a transport.
    package struct Options: Sendable {
        /// The path of a PEM file with certificate authorities to trust beside the system's.
        package var authorities: String?
        /// The largest number of connections to one server; further requests wait. It equals the number of fetches that
        /// the engine runs at once, stalled ones included (``FillEngine/Configuration/stalledFetches``). Connections
        /// are made when they are needed.
        package var connections = 64 + 16 + 256
        package var connectTimeout: Duration = .seconds(10)
        /// How long a server may send nothing, before or during an answer.
        package var idleTimeout: Duration = .seconds(30)

        package init() {}
    }

    /// The kind of requests that a client serves.
    private struct Route: Hashable {
        let proxy: ProxyRules.Proxy?
        /// Large requests use HTTP/1.1. HTTP/2 has one connection and therefore one thread, which is saturated long
        /// before the connection to a near server is.
        let isBulk: Bool
    }

    private let options: Options
    private let proxies: ProxyRules
    private let tls: TLSConfiguration
    /// A leaf lock.
    private let clients = NIOLockedValueBox<[Route: HTTPClient]>([:])

    /// Makes a transport.
    ///
    /// - Throws: for a file of authorities that cannot be used, and a proxy in the environment that cannot be used.
    package init(options: Options, environment: [String: String]) throws(LocationError) {
        self.options = options
        proxies = try ProxyRules(environment: environment)
        var tls = TLSConfiguration.makeClientConfiguration()
        // TLS 1.0 and 1.1 are insecure (RFC 8996), and NIOSSL would accept them.
        tls.minimumTLSVersion = .tlsv12
        if let path = options.authorities {
            do {
                tls.additionalTrustRoots = [.certificates(try NIOSSLCertificate.fromPEMFile(path))]
            } catch {
                throw LocationError("\(path) is not a readable PEM file of certificates")
            }
        }
        self.tls = tls
        // The event loops are made here and not at the first request: if no descriptor is left for one, the process
        // ends.
        _ = HTTPClient.defaultEventLoopGroup
    }

    package convenience init(_ access: RemoteAccess) throws(LocationError) {
        var options = Options()
        if !access.authorities.isEmpty { options.authorities = access.authorities }
        try self.init(options: options, environment: access.environment)
    }

    deinit {
        for client in clients.withLockedValue({ $0 }).values { client.shutdown { _ in } }
    }

    /// Sends a request and waits for the head of its answer. The body is still to come; dropping it closes its
    /// connection.
    ///
    /// - Parameters:
    ///   - body: the body of the request, sent with its length.
    ///   - isBulk: asks for much content from a near server. The request then uses HTTP/1.1, over many connections.
    /// - Throws: `.remoteFailed` when there is no answer, or a small one breaks off; `.cancelled` when the task is
    ///   cancelled.
    package func send(
        _ request: HTTPClientRequest, body: [UInt8] = [], isBulk: Bool = false
    ) async throws(FillError) -> HTTPResponse {
        let asked: HTTPClient.Request
        do {
            asked = try .init(
                url: request.url, method: request.method, headers: request.headers,
                body: body.isEmpty ? nil : .bytes(body))
        } catch { throw FillError(transport: error, request.url) }
        let timeout = TimeAmount(options.idleTimeout + options.connectTimeout)
        let exchange = HTTPExchange(asked, to: client(for: asked.url, isBulk: isBulk), timeout: timeout)
        do {
            return HTTPResponse(head: try await exchange.head(), url: request.url, exchange: exchange)
        } catch {
            throw FillError(transport: error, request.url, isOutage: !exchange.isAnswered)
        }
    }

    /// As ``send(_:body:isBulk:)``, and follows up to five redirects.
    ///
    /// The authorization is not sent to another server, and a redirect from https to http is refused.
    package func sendFollowing(
        _ request: HTTPClientRequest, isBulk: Bool = false
    ) async throws(FillError) -> HTTPResponse {
        var request = request
        for hop in 0...5 {
            let response: HTTPResponse
            do throws(FillError) { response = try await send(request, isBulk: isBulk) } catch {
                // The failure of another server tells nothing about this one, so it is no outage.
                throw hop == 0 ? error : FillError(error.code, error.reason, error.cause)
            }
            guard [301, 302, 303, 307, 308].contains(response.status.code),
                let location = response.headers.first(name: "Location")
            else { return response }
            guard let old = URL(string: request.url), let new = URL(string: location, relativeTo: old)?.absoluteURL,
                new.scheme == "https" || (new.scheme == "http" && old.scheme == "http")
            else { throw FillError.remoteFailed("\(request.url): redirected to \(location)") }
            if (new.scheme, new.host, new.port) != (old.scheme, old.host, old.port) {
                request.headers.remove(name: "Authorization")
            }
            request.url = new.absoluteString
        }
        throw FillError.remoteFailed("\(request.url): redirected too often")
    }

    private func client(for url: URL, isBulk: Bool) -> HTTPClient {
        let isEncrypted = url.scheme == "https"
        let route = Route(
            proxy: proxies.proxy(for: url.host ?? "", isEncrypted: isEncrypted), isBulk: isBulk && isEncrypted)
        return clients.withLockedValue { clients in
            if let client = clients[route] { return client }
            let client = makeClient(route)
            clients[route] = client
            return client
        }
    }

    private func makeClient(_ route: Route) -> HTTPClient {
        var configuration = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(connect: .init(options.connectTimeout), read: .init(options.idleTimeout)))
        if route.isBulk { configuration.httpVersion = .http1Only }
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = options.connections
        // Servers close idle connections, nginx after 75 s. A request on such a connection would fail.
        configuration.connectionPool.idleTimeout = .seconds(30)
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.http1_1ConnectionDebugInitializer = { Self.takePieces($0, of: 1 << 20) }
        configuration.http2ConnectionDebugInitializer = { connection in
            // With larger pieces, the client copies the rest of a piece again for each frame.
            Self.takePieces(connection, of: 128 << 10).flatMap { HTTP2Windows.widen(connection) }
        }
        configuration.proxy = route.proxy.map { proxy in
            let parts = proxy.credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let authorization = parts.map {
                HTTPClient.Authorization.basic(username: String($0[0]), password: $0.count > 1 ? String($0[1]) : "")
            }
            return .server(host: proxy.host, port: proxy.port, authorization: authorization)
        }
        // Traces are not used, and would be computed for each request.
        configuration.tracing.tracer = nil
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// The default is 64 KiB. Each piece is passed from thread to thread and written by itself, so larger ones cost
    /// less.
    private static func takePieces(_ connection: any Channel, of most: Int) -> EventLoopFuture<Void> {
        connection.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 16 << 10, initial: 64 << 10, maximum: most))
    }
}
