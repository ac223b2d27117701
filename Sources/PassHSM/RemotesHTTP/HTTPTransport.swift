import AsyncHTTPClient
import FoundationEssentials
import HSMCore
import HSMRemotes
import NIOCore
import NIOHTTP1
import NIOSSL

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Sends requests: connections that are kept and shared, HTTP/2 where a server offers it, TLS, proxies. Every method may
/// be called on any thread.
///
/// It asks once: who asks again, and when, is the fill engine's to decide.
package final class HTTPTransport: Sendable {
    package struct Options: Sendable {
        /// PEM file of certificate authorities that are trusted beside the system's.
        package var authorities: String?
        /// Connections to one server at most; requests beyond wait. As many as the engine has fetches at once, those that hang
        /// included (``FillEngine/Configuration/stalledFetches``); they are made when they are needed.
        package var connections = 64 + 16 + 256
        package var connectTimeout: Duration = .seconds(10)
        /// How long a server may send nothing, in the middle of an answer or before it.
        package var idleTimeout: Duration = .seconds(30)

        package init() {}
    }

    /// What a client is for.
    private struct Route: Hashable {
        let proxy: ProxyRules.Proxy?
        /// HTTP/2 has one connection, and so one thread, which is full long before the line to a near server is.
        let isBulk: Bool
    }

    private let options: Options
    private let proxies: ProxyRules
    private let tls: TLSConfiguration
    /// A leaf lock.
    private let clients = NIOLockedValueBox<[Route: HTTPClient]>([:])

    /// - Throws: for a file of authorities that cannot be used, and a proxy in the environment that cannot be.
    package init(options: Options, environment: [String: String]) throws(LocationError) {
        self.options = options
        proxies = try ProxyRules(environment: environment)
        var tls = TLSConfiguration.makeClientConfiguration()
        // RFC 8996: TLS 1.0 and 1.1 protect nothing; NIOSSL would take them.
        tls.minimumTLSVersion = .tlsv12
        if let path = options.authorities {
            do {
                tls.additionalTrustRoots = [.certificates(try NIOSSLCertificate.fromPEMFile(path))]
            } catch {
                throw LocationError("\(path) is no PEM file of certificates that can be read")
            }
        }
        self.tls = tls
        // Its event loops are opened here, not at the first request: without a descriptor for one the process ends.
        _ = HTTPClient.defaultEventLoopGroup
    }

    deinit {
        for client in clients.withLockedValue({ $0 }).values { client.shutdown { _ in } }
    }

    /// The head of the answer, and a body that is still to come; a body that is dropped ends its connection.
    ///
    /// - Parameters:
    ///   - body: of the request, sent with its length.
    ///   - isBulk: what is asked for is large, and the server near: it goes by HTTP/1.1, over many connections.
    /// - Throws: `.remoteFailed` when there is no answer, or a small one breaks off; `.cancelled` when the task is.
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

    /// As ``send(_:body:isBulk:)``, and goes where the server redirects to, five times at most.
    ///
    /// Another server is not told the authorization, and nobody is led from https to http.
    package func sendFollowing(
        _ request: HTTPClientRequest, isBulk: Bool = false
    ) async throws(FillError) -> HTTPResponse {
        var request = request
        for hop in 0...5 {
            let response: HTTPResponse
            do throws(FillError) { response = try await send(request, isBulk: isBulk) } catch {
                // Of another server nothing is known.
                throw hop == 0 ? error : FillError(error.code, error.reason, error.cause)
            }
            guard [301, 302, 303, 307, 308].contains(response.status.code),
                let location = response.headers.first(name: "Location")
            else { return response }
            guard let old = URL(string: request.url), let new = URL(string: location, relativeTo: old)?.absoluteURL,
                new.scheme == "https" || (new.scheme == "http" && old.scheme == "http")
            else { throw FillError(.io, .remoteFailed, "\(request.url): redirected to \(location)") }
            if (new.scheme, new.host, new.port) != (old.scheme, old.host, old.port) {
                request.headers.remove(name: "Authorization")
            }
            request.url = new.absoluteString
        }
        throw FillError(.io, .remoteFailed, "\(request.url): redirected too often")
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
        // Servers close idle connections, nginx after 75 s: a request would meet that.
        configuration.connectionPool.idleTimeout = .seconds(30)
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.http1_1ConnectionDebugInitializer = { Self.takePieces($0, of: 1 << 20) }
        configuration.http2ConnectionDebugInitializer = { connection in
            // Of a larger piece the client copies again what it has of it, frame by frame.
            Self.takePieces(connection, of: 128 << 10).flatMap { HTTP2Windows.widen(connection) }
        }
        configuration.proxy = route.proxy.map { proxy in
            let parts = proxy.credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let authorization = parts.map {
                HTTPClient.Authorization.basic(username: String($0[0]), password: $0.count > 1 ? String($0[1]) : "")
            }
            return .server(host: proxy.host, port: proxy.port, authorization: authorization)
        }
        // Nobody looks at them, and they are worked out for each request.
        configuration.tracing.tracer = nil
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// The default is 64 KiB: each piece is handed from thread to thread, and written by itself.
    private static func takePieces(_ connection: any Channel, of most: Int) -> EventLoopFuture<Void> {
        connection.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 16 << 10, initial: 64 << 10, maximum: most))
    }
}
