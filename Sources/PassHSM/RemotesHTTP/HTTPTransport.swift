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
        /// Connections to one server at most; requests beyond wait.
        package var connections = 64
        package var connectTimeout: Duration = .seconds(10)
        /// How long a server may send nothing, in the middle of an answer or before it.
        package var silence: Duration = .seconds(30)

        package init() {}
    }

    private let options: Options
    private let proxies: ProxyRules
    private let tls: TLSConfiguration
    /// One for each proxy, and one for none. A leaf lock.
    private let clients = NIOLockedValueBox<[ProxyRules.Proxy?: HTTPClient]>([:])

    /// - Throws: for a file of authorities that cannot be used, and a proxy in the environment that cannot be.
    package init(options: Options, environment: [String: String]) throws(LocationError) {
        self.options = options
        proxies = try ProxyRules(environment: environment)
        var tls = TLSConfiguration.makeClientConfiguration()
        if let path = options.authorities {
            do {
                tls.additionalTrustRoots = [.certificates(try NIOSSLCertificate.fromPEMFile(path))]
            } catch {
                throw LocationError("\(path) is no PEM file of certificates that can be read")
            }
        }
        self.tls = tls
    }

    deinit {
        for client in clients.withLockedValue({ $0 }).values { client.shutdown { _ in } }
    }

    /// A body of at most so many bytes is taken at once.
    private static let small = 128 << 10

    /// The head of the answer, and a body that is still to come; a body that is dropped ends its connection.
    ///
    /// A small body that holds content has come already: to wait for each piece of it costs more than to carry it.
    ///
    /// - Throws: `.remoteFailed` when there is no answer, or a small one breaks off; `.cancelled` when the task is.
    package func send(_ request: HTTPClientRequest) async throws(FillError) -> HTTPClientResponse {
        let client = client(for: request.url)
        let deadline = NIODeadline.now() + .init(options.silence + options.connectTimeout)
        return try await withTaskExecutorPreference(EventLoopExecutor.next) { () async throws(FillError) in
            var response: HTTPClientResponse
            do { response = try await client.execute(request, deadline: deadline) } catch {
                throw FillError(transport: error, request.url, isOutage: true)
            }
            guard request.method == .GET, response.status == .ok || response.status == .partialContent,
                let length = response.headers.first(name: "Content-Length").flatMap({ Int($0) }), length <= Self.small
            else { return response }
            do { response.body = .bytes(try await response.body.collect(upTo: Self.small)) } catch {
                throw FillError(transport: error, request.url)
            }
            return response
        }
    }

    /// As ``send(_:)``, and goes where the server redirects to, five times at most.
    ///
    /// Another server is not told the authorization, and nobody is led from https to http.
    package func sendFollowing(_ request: HTTPClientRequest) async throws(FillError) -> HTTPClientResponse {
        var request = request
        for hop in 0...5 {
            let response: HTTPClientResponse
            do throws(FillError) { response = try await send(request) } catch {
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

    private func client(for url: String) -> HTTPClient {
        let address = URL(string: url)
        let proxy = proxies.proxy(for: address?.host ?? "", isEncrypted: address?.scheme == "https")
        return clients.withLockedValue { clients in
            if let client = clients[proxy] { return client }
            let client = makeClient(proxy)
            clients[proxy] = client
            return client
        }
    }

    private func makeClient(_ proxy: ProxyRules.Proxy?) -> HTTPClient {
        var configuration = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(connect: .init(options.connectTimeout), read: .init(options.silence)))
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = options.connections
        // Servers close idle connections, nginx after 75 s: a request would meet that.
        configuration.connectionPool.idleTimeout = .seconds(30)
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.http1_1ConnectionDebugInitializer = { Self.takeLargePieces($0) }
        configuration.http2ConnectionDebugInitializer = { connection in
            Self.takeLargePieces(connection).flatMap { HTTP2Windows.widen(connection) }
        }
        configuration.proxy = proxy.map { proxy in
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
    private static func takeLargePieces(_ connection: any Channel) -> EventLoopFuture<Void> {
        connection.setOption(
            .recvAllocator,
            value: AdaptiveRecvByteBufferAllocator(minimum: 16 << 10, initial: 64 << 10, maximum: 1 << 20))
    }
}
