import FaultServers
import HSMCore
import HSMRemotes
import HSMSystem
import Testing

/// A store that answers what it should not.
@Suite struct S3FaultTests {
    private static let content = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    private static let object = RemoteObject(
        key: RemoteKey(Array("a b/file".utf8)), version: RemoteVersion(Array("\"one-2\"".utf8)), size: content.count)
    private static let range = 70_000..<200_000

    static func answer(_ request: FaultServer.Request) -> FaultServer.Reply {
        guard let range = request.range else { return FaultServer.Reply(status: 400) }
        return FaultServer.Reply(
            status: 206,
            headers: [
                "ETag": "\"one-2\"",
                "Content-Range": "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(content.count)",
            ], body: Array(content[range]))
    }

    static func source(_ url: String, idleTimeout: Duration = .seconds(20)) throws -> S3Source {
        var options = HTTPTransport.Options()
        options.idleTimeout = idleTimeout
        var address = try BucketAddress(BytePath("s3://bucket/top"))
        address.endpoint = try WebAddress(BytePath(url))
        let environment = ["AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret", "HOME": "/nonexistent"]
        return try S3Source(
            address, transport: try HTTPTransport(options: options, environment: [:]),
            credentials: try CredentialChain(profile: nil, environment: environment))
    }

    /// What a read of ``range`` comes to.
    private static func read(_ source: S3Source) async -> ([UInt8], FillError?) {
        var bytes: [UInt8] = []
        do throws(FillError) {
            try await source.read(object, range: range) { piece throws(FillError) in bytes += piece }
        } catch { return (bytes, error) }
        return (bytes, nil)
    }

    @Test func `a range is asked for signed, on the condition of its version`() async throws {
        let server = try FaultServer(Self.answer)
        defer { server.stop() }
        let (bytes, error) = await Self.read(try Self.source(server.url))
        #expect(error == nil && bytes == Array(Self.content[Self.range]))
        let request = try #require(server.requests.first)
        #expect(request.target == "/bucket/top/a%20b/file")
        #expect(request.headers["if-match"] == "\"one-2\"")
        #expect(request.headers["authorization"]?.contains("Credential=KEY/") == true)
    }

    @Test(arguments: [206, 200, 416])
    func `an object whose head says that it is empty is asked for its first byte`(status: Int) async throws {
        let server = try FaultServer { request in
            var reply = FaultServer.Reply(headers: ["ETag": "\"one-2\"", "Content-Length": "0"])
            guard request.method != "HEAD" else { return reply }
            reply.status = status
            reply.headers["Content-Length"] = nil
            if status == 206 { reply.headers["Content-Range"] = "bytes 0-0/300000" }
            reply.body = status == 206 ? [Self.content[0]] : status == 200 ? Self.content : []
            return reply
        }
        defer { server.stop() }
        let found = try await Self.source(server.url).current(Self.object.key).object
        #expect(found.size == (status == 416 ? 0 : Self.content.count) && found.version == Self.object.version)
        #expect(server.requests.map(\.method) == ["HEAD", "GET"])
    }

    /// A wrong answer, and what it has to come to.
    struct Wrong: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let reason: FillError.Reason
        var code = FillError.Code.io
        var isOutage = false
        let spoil: @Sendable (inout FaultServer.Reply) -> Void

        static func status(
            _ status: Int, _ text: String, _ reason: FillError.Reason, _ code: FillError.Code = .io,
            isOutage: Bool = false
        ) -> Wrong {
            Wrong(testDescription: "\(status) \(text)", reason: reason, code: code, isOutage: isOutage) { reply in
                let body = "<?xml version=\"1.0\"?><Error><Code>\(text)</Code><Message>m</Message></Error>"
                reply = FaultServer.Reply(status: status, body: Array(body.utf8))
            }
        }

        static let all: [Wrong] = [
            status(404, "NoSuchKey", .remoteGone), status(404, "NoSuchBucket", .remoteFailed),
            status(412, "PreconditionFailed", .remoteChanged), status(416, "InvalidRange", .remoteChanged),
            status(403, "AccessDenied", .remoteFailed, .permission),
            status(403, "SignatureDoesNotMatch", .remoteFailed, .permission),
            status(429, "TooManyRequests", .remoteFailed), status(500, "InternalError", .remoteFailed),
            status(503, "SlowDown", .remoteFailed, isOutage: true), status(304, "NotModified", .remoteFailed),
            Wrong(testDescription: "elsewhere", reason: .remoteFailed) { reply in
                reply = FaultServer.Reply(status: 307, headers: ["Location": "http://127.0.0.1:1/"])
            },
            Wrong(testDescription: "another version", reason: .remoteChanged) { $0.headers["ETag"] = "\"two\"" },
            Wrong(testDescription: "no version", reason: .remoteFailed) { $0.headers["ETag"] = nil },
            Wrong(testDescription: "another size", reason: .remoteChanged) { reply in
                reply.headers["Content-Range"] = "bytes 70000-199999/300001"
            },
            Wrong(testDescription: "another range", reason: .remoteFailed) { reply in
                reply.headers["Content-Range"] = "bytes 70001-200000/300000"
            },
            Wrong(testDescription: "shorter", reason: .remoteFailed) { $0.body.removeLast() },
            Wrong(testDescription: "no HTTP", reason: .remoteFailed, isOutage: true) { $0.raw = "hello\r\n\r\n" },
            Wrong(testDescription: "nothing", reason: .remoteFailed, isOutage: true) { $0.raw = "" },
            Wrong(testDescription: "silence", reason: .remoteFailed, isOutage: true) { $0.isSilent = true },
        ]
    }

    @Test(arguments: Wrong.all)
    func `of a wrong answer nothing is delivered, and it is told whether the store is down`(wrong: Wrong) async throws {
        let server = try FaultServer { request in
            var reply = Self.answer(request)
            wrong.spoil(&reply)
            return reply
        }
        defer { server.stop() }
        let isSilent = wrong.testDescription == "silence"
        let source = try Self.source(server.url, idleTimeout: isSilent ? .milliseconds(300) : .seconds(20))
        let (bytes, error) = await Self.read(source)
        #expect(bytes.isEmpty)
        #expect(error?.reason == wrong.reason && error?.code == wrong.code, "\(error?.cause ?? "no error")")
        #expect(error?.isOutage == wrong.isOutage)
        #expect(server.requests.count == 1, "nobody is followed, and nothing is asked twice")
    }

    @Test func `an answer that breaks off is an error behind the bytes that came, a slow one comes whole`() async throws
    {
        for cut in [0, 1, 100_000, nil] {
            let server = try FaultServer { request in
                var reply = Self.answer(request)
                reply.cut = cut
                if cut == nil { (reply.trickle, reply.delay) = (5000, 100) }
                return reply
            }
            defer { server.stop() }
            let (bytes, error) = await Self.read(try Self.source(server.url))
            #expect(Self.content[Self.range].prefix(cut ?? .max).starts(with: bytes))
            #expect(error?.reason == (cut == nil ? nil : .remoteFailed) && error?.isOutage != true)
            #expect(cut != nil || bytes.count == Self.range.count)
        }
    }
}
