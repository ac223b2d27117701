import FaultServers
import HSMCore
import HSMRemotes
import HSMSystem
import Testing

/// An object that a test's server has: its bytes tell where they belong.
struct Sample: Sendable {
    static let modified = 784_111_777
    var content = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    var tag: String? = "\"one\""
    var lastModified: String? = HTTPDate.text(modified)

    /// As the source has recorded it.
    var object: RemoteObject {
        let version = tag ?? "m\(Self.modified)-\(content.count)"
        return RemoteObject(
            key: RemoteKey(Array("file".utf8)), version: RemoteVersion(Array(version.utf8)), size: content.count)
    }

    /// What a server that does everything right answers.
    func answer(_ request: FaultServer.Request) -> FaultServer.Reply {
        var reply = FaultServer.Reply()
        reply.headers["ETag"] = tag
        reply.headers["Last-Modified"] = lastModified
        if request.method == "HEAD" {
            reply.headers["Content-Length"] = "\(content.count)"
            return reply
        }
        guard let range = request.range else {
            reply.body = content
            return reply
        }
        reply.status = 206
        reply.headers["Content-Range"] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(content.count)"
        reply.body = Array(content[range])
        return reply
    }
}

/// What came of a read.
struct Outcome: Sendable {
    var bytes: [UInt8] = []
    var error: FillError?

    init(_ source: HTTPSource, _ object: RemoteObject, _ range: Range<Int>) async {
        var bytes: [UInt8] = []
        do throws(FillError) {
            try await source.read(object, range: range) { piece throws(FillError) in bytes += piece }
        } catch { self.error = error }
        self.bytes = bytes
    }
}

/// A source at `url`, with short times.
func source(
    _ url: String, environment: [String: String] = [:], idleTimeout: Duration = .seconds(20), manifest: String? = nil
) throws -> HTTPSource {
    var options = HTTPTransport.Options()
    options.idleTimeout = idleTimeout
    let address = try WebAddress(BytePath(url))
    return HTTPSource(
        address, transport: try HTTPTransport(options: options, environment: environment),
        credentials: try HTTPCredentials(host: address.host, environment: environment),
        manifest: try manifest.map { try HTTPManifest(Array($0.utf8)) })
}

func withServer(
    _ handler: @escaping @Sendable (FaultServer.Request) -> FaultServer.Reply,
    _ body: (FaultServer) async throws -> Void
) async throws {
    let server = try FaultServer(handler)
    defer { server.stop() }
    try await body(server)
}
