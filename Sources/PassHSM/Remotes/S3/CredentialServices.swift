import AsyncHTTPClient
import Glibc
import HSMCore
import HSMSystem
import NIOHTTP1

/// Asks programs and services for credentials. Every method may be called on any thread, and may block it while a
/// program runs.
///
/// No error contains a secret, and none counts as an outage of the store.
struct CredentialServices: Sendable {
    /// The transport to the token service.
    private let transport: HTTPTransport
    /// The transport to services on this machine's host: near, and without a proxy.
    private let near: HTTPTransport

    private static let maxAnswer = 64 << 10

    /// Uses the store's transport for the token service.
    init(_ transport: HTTPTransport) throws(LocationError) {
        self.transport = transport
        var options = HTTPTransport.Options()
        options.connectTimeout = .seconds(2)
        options.idleTimeout = .seconds(5)
        near = try HTTPTransport(options: options, environment: [:])
    }

    /// Gets credentials; nil when there are none, and none are needed.
    ///
    /// - Throws: `.permission` for a refusal, `.io` for an error that may pass.
    func credentials(from source: CredentialSource) async throws(FillError) -> TemporaryCredentials? {
        switch source {
        case .keys(let keys): return TemporaryCredentials(keys)
        case .process(let command):
            do throws(LocationError) { return try CredentialProcess(command).answer } catch {
                throw FillError(.permission, .remoteFailed, error.description)
            }
        case .role(let role, let source):
            guard let own = try await credentials(from: source) else {
                throw FillError(.permission, .remoteFailed, "there are no credentials for the role \(role.arn)")
            }
            return try await assume(role, by: own.credentials)
        case .webIdentity(let role, let file): return try await assume(role, withToken: try token(file))
        case .container(let url, let authorization): return try await ask(containerService: url, authorization)
        case .instance(let service): return try await ask(instanceService: service)
        }
    }

    // MARK: The token service

    private func assume(
        _ role: AssumedRole, by credentials: RequestSignature.Credentials
    ) async throws(FillError) -> TemporaryCredentials {
        let service = try address(role)
        let query = parameters("AssumeRole", role) + (role.externalID.map { [("ExternalId", $0)] } ?? [])
        let path = PercentEncoding.encode(service.path)
        let host = service.authority
        var request = HTTPClientRequest(url: "\(service.origin)\(path)?\(RequestSignature.canonical(query))")
        request.headers.add(contentsOf: [("Host", host), ("User-Agent", "passhsm")])
        let signature = RequestSignature(credentials, region: role.region, service: "sts")
        request.headers.add(
            contentsOf: signature.headers(
                method: "GET", path: path, query: query, headers: [("host", host)], time: time(nil),
                signsContentDigest: false))
        return try await answer(request, role)
    }

    /// The token is sent in the body, because servers and proxies log URLs.
    private func assume(_ role: AssumedRole, withToken token: String) async throws(FillError) -> TemporaryCredentials {
        let service = try address(role)
        let form = parameters("AssumeRoleWithWebIdentity", role) + [("WebIdentityToken", token)]
        var request = HTTPClientRequest(url: service.origin + PercentEncoding.encode(service.path))
        request.method = .POST
        request.headers.add(contentsOf: [
            ("User-Agent", "passhsm"), ("Content-Type", "application/x-www-form-urlencoded"),
        ])
        return try await answer(request, body: Array(RequestSignature.canonical(form).utf8), role)
    }

    private func address(_ role: AssumedRole) throws(FillError) -> WebAddress {
        do throws(LocationError) { return try WebAddress(endpoint: role.service) } catch {
            throw FillError(.permission, .remoteFailed, "AWS_ENDPOINT_URL_STS is not an http:// or https:// URL")
        }
    }

    private func parameters(_ action: String, _ role: AssumedRole) -> [(String, String)] {
        let parameters = [
            ("Action", action), ("Version", "2011-06-15"), ("RoleArn", role.arn), ("RoleSessionName", role.session),
        ]
        return parameters + (role.duration.map { [("DurationSeconds", "\($0)")] } ?? [])
    }

    private func answer(
        _ request: HTTPClientRequest, body: [UInt8] = [], _ role: AssumedRole
    ) async throws(FillError) -> TemporaryCredentials {
        let (status, bytes) = try await ask(transport, request, body: body, "the token service")
        if status == .ok {
            if let credentials = TemporaryCredentials(xml: bytes) { return credentials }
            throw FillError.remoteFailed("the token service's answer holds no valid credentials")
        }
        let elements = XMLElements(bytes)
        func text(_ name: String) -> String {
            String((elements?.text("ErrorResponse/Error/\(name)") ?? "").prefix(500))
        }
        throw Self.refusal(status, "the role \(role.arn)", "\(text("Code")) \(text("Message"))".trimmed)
    }

    // MARK: Services of the host

    private func ask(
        containerService url: String, _ authorization: CredentialSource.Authorization
    ) async throws(FillError) -> TemporaryCredentials {
        var request = HTTPClientRequest(url: url)
        switch authorization {
        case .nothing: break
        case .token(let token): request.headers.add(name: "Authorization", value: token)
        case .file(let path): request.headers.add(name: "Authorization", value: try token(path))
        }
        let (status, bytes) = try await ask(near, request, "the container's credential service")
        guard status == .ok else { throw Self.refusal(status, "the container's credentials", "") }
        return try Self.credentials(bytes, "the container's credential service")
    }

    /// Uses version 2 of the metadata service, which does not answer requests that were redirected to it.
    private func ask(instanceService service: String) async throws(FillError) -> TemporaryCredentials? {
        let name = "the instance's metadata service (AWS_EC2_METADATA_DISABLED=true turns it off)"
        var opening = HTTPClientRequest(url: service + "/latest/api/token")
        opening.method = .PUT
        opening.headers.add(name: "X-aws-ec2-metadata-token-ttl-seconds", value: "60")
        let (opened, token) = try await ask(near, opening, name)
        guard opened == .ok else { throw Self.refusal(opened, name, "") }
        func get(_ path: String) async throws(FillError) -> (HTTPResponseStatus, [UInt8]) {
            var request = HTTPClientRequest(url: service + "/latest/meta-data/iam/security-credentials/" + path)
            request.headers.add(name: "X-aws-ec2-metadata-token", value: String(decoding: token, as: UTF8.self).trimmed)
            return try await ask(near, request, name)
        }
        let (status, roles) = try await get("")
        // An instance without a role.
        if status == .notFound { return nil }
        let role = String(decoding: roles.prefix { $0 != 0x0a }, as: UTF8.self).trimmed
        guard status == .ok, !role.isEmpty else { throw Self.refusal(status, name, "") }
        let (found, bytes) = try await get(PercentEncoding.encode(Array(role.utf8)))
        guard found == .ok else { throw Self.refusal(found, name, "") }
        return try Self.credentials(bytes, name)
    }

    private static func credentials(_ bytes: [UInt8], _ name: String) throws(FillError) -> TemporaryCredentials {
        if let credentials = TemporaryCredentials(json: bytes) { return credentials }
        throw FillError.remoteFailed("the answer of \(name) holds no valid credentials")
    }

    // MARK: All

    private func ask(
        _ transport: HTTPTransport, _ request: HTTPClientRequest, body: [UInt8] = [], _ name: String
    ) async throws(FillError) -> (HTTPResponseStatus, [UInt8]) {
        do throws(FillError) {
            let response = try await transport.send(request, body: body)
            return (response.status, try await response.whole(limit: Self.maxAnswer, name: name))
        } catch {
            if error.reason == .cancelled { throw error }
            // The URL is left out: it identifies the container.
            let cause = error.cause.trimmingPrefix("\(request.url): ")
            throw FillError.remoteFailed("\(name) cannot be asked: \(cause)")
        }
    }

    /// The error for a status. A status that does not blame the request may be different later.
    private static func refusal(_ status: HTTPResponseStatus, _ what: String, _ cause: String) -> FillError {
        let isFinal = (400..<500).contains(status.code) && status != .tooManyRequests
        let explanation = cause.isEmpty ? "" : ": \(cause)"
        return FillError(
            isFinal ? .permission : .io, .remoteFailed, "\(what): no credentials (\(status.code))\(explanation)")
    }

    /// Reads a token. The container's platform writes the file, readable for everyone in the container, and the token
    /// expires within a day.
    private func token(_ path: String) throws(FillError) -> String {
        guard let token = SmallFile.text(path), !token.isEmpty else {
            throw FillError(.permission, .remoteFailed, "the token for credentials cannot be read: \(path)")
        }
        return token
    }
}
