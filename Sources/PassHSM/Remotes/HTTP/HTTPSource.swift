import AsyncHTTPClient
import Glibc
import HSMCore
import NIOHTTP1

/// A tree on a web server as the remote tier.
///
/// A key is a path below the top: names in bytes, joined by `/`. A version is an ``HTTPVersionTag``. Ranges are
/// requested on the condition that the version is the recorded one, and each answer is checked again (``HTTPAnswer``).
package final class HTTPSource: RemoteStore {
    package let address: WebAddress
    package let fetchUnit = 1 << 20
    package let nearFetchUnit = 4 << 20
    let transport: HTTPTransport
    private let credentials: HTTPCredentials
    /// The retries of an import; the fill engine has its own.
    let retries = RetryPolicy()
    private let bodies = WholeBodies()
    /// Replaces the server's index pages, if given.
    let manifest: HTTPManifest?

    package init(
        _ address: WebAddress, transport: HTTPTransport, credentials: HTTPCredentials, manifest: HTTPManifest? = nil
    ) {
        self.address = address
        self.transport = transport
        self.credentials = credentials
        self.manifest = manifest
    }

    package var location: String { address.url }

    /// A request for an object or page, without content coding.
    func request(_ method: HTTPMethod, _ url: String) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: url)
        request.method = method
        request.headers.add(name: "Accept-Encoding", value: "identity")
        request.headers.add(name: "User-Agent", value: "passhsm")
        if let authorization = credentials.authorization {
            request.headers.add(name: "Authorization", value: authorization)
        }
        return request
    }

    // MARK: Reading

    package func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        guard !range.isEmpty else { return }
        guard case .own(let kept) = try await bodies.turn(of: object, at: range.lowerBound) else {
            return try await ask(for: object, range, deliver)
        }
        guard var kept else {
            do throws(FillError) { return try await ask(for: object, range, deliver) } catch {
                bodies.forget(object)
                throw error
            }
        }
        do throws(FillError) { try await goOn(with: &kept, object, range, deliver) } catch {
            bodies.forget(object)
            throw error
        }
    }

    private func ask(
        for object: RemoteObject, _ range: Range<Int>, _ deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        var request = request(.GET, try url(of: object.key))
        request.headers.add(name: "Range", value: "bytes=\(range.lowerBound)-\(range.upperBound - 1)")
        HTTPVersionTag(object.version)?.addCondition(to: &request.headers)
        let response = try await transport.sendFollowing(request, isBulk: range.count > fetchUnit)
        let answer = try HTTPAnswer(status: response.status, headers: response.headers, range: range, of: object)
        bodies.note(sendsAll: !answer.isPart)
        var body = HTTPBody(response, name: "\(object.key)")
        guard answer.endsWithRange else {
            var kept = WholeBodies.Kept(body: body, position: 0)
            return try await goOn(with: &kept, object, range, deliver)
        }
        try await body.deliver(skipping: answer.skipped, count: range.count, endsThere: true, to: deliver)
        bodies.forget(object)
    }

    /// Continues to read the body of an answer without ranges, and keeps the rest for the next read.
    private func goOn(
        with kept: inout WholeBodies.Kept, _ object: RemoteObject, _ range: Range<Int>,
        _ deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        let isEnd = range.upperBound == object.size
        try await kept.body.deliver(
            skipping: range.lowerBound - kept.position, count: range.count, endsThere: isEnd, to: deliver)
        kept.position = range.upperBound
        if isEnd { bodies.forget(object) } else { bodies.putDown(kept, of: object) }
    }

    package func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        let headers = try await ask(key)
        guard let tag = HTTPVersionTag(headers.fields, size: headers.size) else {
            throw FillError.remoteFailed(
                "\(key): the server sends neither a strong ETag nor Last-Modified, so versions cannot be told apart")
        }
        let modified = headers.fields.first(name: "Last-Modified").flatMap { HTTPDate.seconds($0) } ?? time(nil)
        return (
            RemoteObject(key: key, version: tag.version, size: headers.size),
            RemoteEntry.Time(seconds: modified, nanoseconds: 0)
        )
    }

    /// The headers and the size of an object, by HEAD. Where the server's answer to HEAD has no size, or size 0, the
    /// first byte is requested instead: several servers answer 0 for files that are not empty.
    private func ask(_ key: RemoteKey) async throws(FillError) -> (fields: HTTPHeaders, size: Int) {
        let url = try url(of: key)
        let head = try await transport.sendFollowing(request(.HEAD, url))
        try Self.expectNoDirectory(head, url, key)
        if head.status == .ok, let size = head.headers.first(name: "Content-Length").flatMap({ Int(digits: $0) }),
            size > 0
        {
            return (head.headers, size)
        }
        guard [200, 400, 403, 405, 501].contains(head.status.code) else {
            throw FillError(status: head.status, head.headers, key, isConditional: false)
        }
        var request = request(.GET, url)
        request.headers.add(name: "Range", value: "bytes=0-0")
        let response = try await transport.sendFollowing(request)
        return (response.headers, try await response.objectSize(key))
    }

    /// Refuses a directory: the server redirects its name to the name with a slash.
    private static func expectNoDirectory(
        _ response: HTTPResponse, _ url: String, _ key: RemoteKey
    ) throws(FillError) {
        guard response.url == url + "/" else { return }
        throw FillError.remoteChanged("\(key) is a directory now")
    }

    private func url(of key: RemoteKey) throws(FillError) -> String {
        let names = key.bytes.split(separator: 0x2f, omittingEmptySubsequences: false)
        for name in names where name.isEmpty || name == [0x2e] || name == [0x2e, 0x2e] || name.contains(0) {
            throw FillError.remoteFailed("\(key) is not a path below \(location)")
        }
        // AsyncHTTPClient would ask for the top instead, because `URL.path` is empty then.
        guard String(validating: key.bytes, as: UTF8.self) != nil else {
            throw FillError.remoteFailed("\(key): a name that is not UTF-8 cannot be asked for over HTTP")
        }
        return address.url(of: key.bytes)
    }
}
