import FaultServers
import HSMCore
import HSMRemotes
import Testing

/// Servers that say of every file, when they are asked for its head, that it is empty.
@Suite struct HTTPEmptyTests {
    /// What the server has, and how it answers a GET of the first byte.
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let size: Int?
        let reply: FaultServer.Reply
    }

    private static let content = Array("content".utf8)

    private static func reply(_ status: Int, _ headers: [String: String], _ body: [UInt8]) -> FaultServer.Reply {
        let version = ["ETag": "\"t\"", "Last-Modified": HTTPDate.text(Sample.modified)]
        return FaultServer.Reply(status: status, headers: version.merging(headers) { $1 }, body: body)
    }

    private static let chunked: FaultServer.Reply = {
        var reply = FaultServer.Reply()
        reply.raw =
            "HTTP/1.1 200 OK\r\nETag: \"t\"\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n"
        return reply
    }()

    private static let emptyChunked: FaultServer.Reply = {
        var reply = FaultServer.Reply()
        reply.raw = "HTTP/1.1 200 OK\r\nETag: \"t\"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        return reply
    }()

    static let cases = [
        Case(
            testDescription: "a range", size: 7,
            reply: reply(206, ["Content-Range": "bytes 0-0/7"], Array(content.prefix(1)))),
        Case(testDescription: "all of it", size: 7, reply: reply(200, [:], content)),
        Case(testDescription: "all of it in chunks", size: 7, reply: chunked),
        Case(testDescription: "nothing, in chunks", size: 0, reply: emptyChunked),
        Case(testDescription: "nothing", size: 0, reply: reply(200, [:], [])),
        Case(testDescription: "no such range", size: 0, reply: reply(416, ["Content-Range": "bytes */0"], [])),
        Case(testDescription: "no such range, of nothing", size: 0, reply: reply(416, [:], [])),
        Case(testDescription: "no such range of more", size: 9, reply: reply(416, ["Content-Range": "bytes */9"], [])),
        Case(
            testDescription: "a range of no known whole", size: nil,
            reply: reply(206, ["Content-Range": "bytes 0-0/*"], Array(content.prefix(1)))),
        Case(testDescription: "an error", size: nil, reply: reply(403, [:], [])),
    ]

    @Test(arguments: cases)
    func `a file is empty when a GET says so too, and has the size that this tells`(_ wanted: Case) async throws {
        try await withServer { request in
            if request.method != "HEAD" { return wanted.reply }
            return Self.reply(200, ["Content-Length": "0"], [])
        } _: { server in
            let source = try source(server.url)
            var found: Int?
            do throws(FillError) { found = try await source.current(RemoteKey(Array("f".utf8))).object.size } catch {}
            #expect(found == wanted.size)
            #expect(server.requests.map(\.method) == ["HEAD", "GET"], "once")
        }
    }

    @Test func `a body without end is not counted beyond a mebibyte`() async throws {
        try await withServer { request in
            var reply = Self.reply(200, ["Content-Length": "0"], [])
            if request.method != "HEAD" {
                let piece = "100000\r\n" + String(repeating: "x", count: 1 << 20) + "\r\n"
                reply.raw =
                    "HTTP/1.1 200 OK\r\nETag: \"t\"\r\nTransfer-Encoding: chunked\r\n\r\n" + piece + piece + "0\r\n\r\n"
            }
            return reply
        } _: { server in
            let source = try source(server.url)
            await #expect(throws: FillError.self) { _ = try await source.current(RemoteKey(Array("f".utf8))) }
        }
    }

    @Test func `a listing imports such files with their content`() async throws {
        try await withServer { request in
            if request.target == "/" { return HTTPListingTests.page("<title>Index of /</title><a href=\"f\">f</a>") }
            if request.method == "HEAD" { return Self.reply(200, ["Content-Length": "0"], []) }
            return Self.reply(206, ["Content-Range": "bytes 0-0/7"], Array(Self.content.prefix(1)))
        } _: { server in
            let events = try await HTTPListingTests.events(try source(server.url))
            #expect(events == ["enter ", "file f 7", "leave"])
        }
    }
}
