import AsyncHTTPClient
import Glibc
import HSMCore
import NIOHTTP1

/// The objects below a prefix in a bucket as the remote tier.
///
/// A key is the part of the object's key after the prefix. A version is the ETag with its quotes. Every answer is
/// checked like a web server's (``HTTPAnswer``). Requests are signed, and redirects are not followed.
package final class S3Source: RemoteStore {
    package let address: BucketAddress
    package let fetchUnit = 1 << 20
    package let nearFetchUnit = 4 << 20
    /// Whether an import asks for each object's metadata.
    let readsMetadata: Bool
    private let base: WebAddress
    private let transport: HTTPTransport
    private let region: String
    private let credentials: StoreCredentials
    let retries = RetryPolicy()

    /// Asks no service for credentials yet.
    ///
    /// - Parameters:
    ///   - readsMetadata: false when an import uses the listing alone.
    ///   - isComplete: the address is complete, so the environment's endpoint and region are ignored.
    /// - Throws: for an endpoint in the environment that is not a URL.
    package init(
        _ address: BucketAddress, transport: HTTPTransport, credentials: CredentialChain, readsMetadata: Bool = true,
        isComplete: Bool = false
    ) throws(LocationError) {
        let address = try isComplete ? address : address.completed(by: credentials)
        region = address.region ?? "us-east-1"
        self.address = address
        self.readsMetadata = readsMetadata
        self.transport = transport
        base = address.base(region: region)
        self.credentials = StoreCredentials(credentials, try CredentialServices(transport))
    }

    package var location: String { address.url }

    // MARK: Requests

    package func lookAnew() { credentials.lookAnew() }

    /// Sends a request for a key of the bucket, or for the bucket itself. When the answer suggests that the credentials
    /// have expired, the request is sent again with new ones, if there are any.
    private func send(
        _ method: HTTPMethod, _ key: [UInt8], query: [(String, String)] = [], _ headers: [(String, String)] = [],
        isBulk: Bool = false
    ) async throws(FillError) -> HTTPResponse {
        let used = try await credentials.current()
        let response = try await transport.send(
            request(method, key, query: query, headers, used), isBulk: isBulk)
        // An answer to HEAD has only its status. AWS answers 400 to an expired session token.
        guard [400, 401, 403].contains(response.status.code), let other = await credentials.others(than: used) else {
            return response
        }
        return try await transport.send(request(method, key, query: query, headers, other), isBulk: isBulk)
    }

    private func request(
        _ method: HTTPMethod, _ key: [UInt8], query: [(String, String)], _ headers: [(String, String)],
        _ credentials: RequestSignature.Credentials?
    ) -> HTTPClientRequest {
        let path = PercentEncoding.encode(base.path + key)
        let host = base.authority
        let extra = headers.filter { $0.0.hasPrefix("x-amz-") }
        let text = RequestSignature.canonical(query)
        var request = HTTPClientRequest(url: base.origin + path + (text.isEmpty ? "" : "?" + text))
        request.method = method
        request.headers.add(contentsOf: [("Host", host), ("Accept-Encoding", "identity"), ("User-Agent", "passhsm")])
        request.headers.add(contentsOf: headers)
        if let credentials {
            let added = RequestSignature(credentials, region: region).headers(
                method: method.rawValue, path: path, query: query, headers: [("host", host)] + extra, time: time(nil))
            request.headers.add(contentsOf: added)
        }
        return request
    }

    private func key(_ key: RemoteKey) throws(FillError) -> [UInt8] {
        guard Self.fault(in: key.bytes) == nil else {
            throw FillError.remoteFailed("\(key) is not a path below \(location)")
        }
        return address.prefix + key.bytes
    }

    /// Why a key cannot be the path of a file; nil when it can.
    static func fault(in key: [UInt8]) -> String? {
        for name in key.split(separator: 0x2f, omittingEmptySubsequences: false) {
            if name.isEmpty { return "it has an empty name" }
            if name == [0x2e] || name == [0x2e, 0x2e] { return "it has . or .. as a name" }
            if name.contains(0) { return "it has a zero byte" }
            if name.count > 255 { return "it has a name of more than 255 bytes" }
        }
        return nil
    }

    /// The error for an unsuccessful answer. The store gives the cause in its body.
    private func failure(_ response: HTTPResponse, _ key: RemoteKey) async -> FillError {
        let status = FillError(status: response.status, response.headers, key, isConditional: true)
        if let region = response.headers.first(name: "x-amz-bucket-region"), (300..<400).contains(response.status.code)
        {
            return FillError.remoteFailed(
                "the bucket \(address.bucket) is in the region \(region): name it with AWS_REGION or ?region=")
        }
        let body = (try? await response.whole(limit: 64 << 10, name: "\(key)")) ?? []
        guard let code = XMLElements(body)?.text("Error/Code") else { return status }
        // When the bucket is missing, the object need not be gone.
        let reason = code == "NoSuchBucket" ? .remoteFailed : status.reason
        return FillError(
            status.code, reason, "\(status.cause) (\(code))", retryAfter: status.retryAfter, isOutage: status.isOutage)
    }

    // MARK: Reading

    package func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        guard !range.isEmpty else { return }
        let response = try await send(
            .GET, try key(object.key),
            [
                ("Range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)"),
                ("If-Match", object.version.description),
            ], isBulk: range.count > fetchUnit)
        guard response.status == .ok || response.status == .partialContent else {
            throw await failure(response, object.key)
        }
        let answer = try HTTPAnswer(
            status: response.status, headers: response.headers, range: range, of: object, keepsCodings: true)
        var body = HTTPBody(response, name: "\(object.key)")
        try await body.deliver(
            skipping: answer.skipped, count: range.count, endsThere: answer.endsWithRange, to: deliver)
    }

    package func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        let head = try await head(key)
        return (head.object, head.metadata.modificationTime ?? RemoteEntry.Time(seconds: time(nil), nanoseconds: 0))
    }

    /// Asks for the head of an object.
    ///
    /// - Parameter suffix: appended to the key: a slash for the marker of a directory.
    func head(_ key: RemoteKey, suffix: [UInt8] = []) async throws(FillError) -> ObjectHead {
        let response = try await send(.HEAD, try self.key(key) + suffix, [("x-amz-checksum-mode", "ENABLED")])
        guard response.status == .ok else {
            throw FillError(status: response.status, response.headers, key, isConditional: false)
        }
        var head = try ObjectHead(response.headers, key)
        // Some stores answer 0 for objects that are not empty.
        if head.object.size == 0 && suffix.isEmpty {
            let first = try await send(
                .GET, try self.key(key), [("Range", "bytes=0-0"), ("If-Match", head.object.version.description)])
            guard [200, 206, 416].contains(first.status.code) else { throw await failure(first, key) }
            head.object.size = try await first.objectSize(key)
        }
        return head
    }

    // MARK: Listing

    private static let maxPage = 16 << 20

    /// Asks for the next page of the listing: at most 1,000 objects, in the order of their keys' bytes.
    func page(after token: String?) async throws(FillError) -> BucketPage {
        let query = [
            ("list-type", "2"), ("encoding-type", "url"), ("prefix", String(decoding: address.prefix, as: UTF8.self)),
        ]
        let next = token.map { [("continuation-token", $0)] } ?? []
        let response = try await send(.GET, [], query: query + next)
        guard response.status == .ok else { throw await failure(response, RemoteKey(Array(location.utf8))) }
        return try BucketPage(try await response.whole(limit: Self.maxPage, name: location))
    }
}
