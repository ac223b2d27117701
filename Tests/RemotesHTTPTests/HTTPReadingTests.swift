import FaultServers
import Foundation
import HSMCore
import HSMRemotes
import HSMSystem
import NIOHTTP1
import Synchronization
import Testing

@Suite struct HTTPReadingTests {
    static let range = 70_000..<200_000

    @Test func `a range is asked for on the condition of its version, in no coding, and comes whole`() async throws {
        let sample = Sample()
        try await withServer(sample.answer) { server in
            let source = try source(server.url)
            for range in [Self.range, 0..<1, 999_999..<1_000_000, 0..<1_000_000] {
                let outcome = await Outcome(source, sample.object, range)
                #expect(outcome.error == nil)
                let isSame = outcome.bytes == Array(sample.content[range])
                #expect(isSame)
            }
            let request = try #require(server.requests.first)
            #expect(request.headers["if-match"] == "\"one\"")
            #expect(request.headers["range"] == "bytes=70000-199999")
            #expect(request.headers["accept-encoding"] == "identity")
            #expect(request.target == "/file")
            #expect(server.accepted == 1, "one connection for all of them")
            #expect(await Outcome(source, sample.object, 5..<5).error == nil)
            #expect(server.requests.count == 4, "nothing is asked for nothing")
        }
    }

    @Test func `without a strong ETag the time and the length are the version`() async throws {
        for tag in [nil, "W/\"one\""] {
            var sample = Sample()
            sample.tag = nil
            let object = sample.object
            sample.tag = tag
            let server = try FaultServer(sample.answer)
            defer { server.stop() }
            let outcome = await Outcome(try source(server.url), object, Self.range)
            let isSame = outcome.bytes == Array(sample.content[Self.range])
            #expect(isSame)
            #expect(server.requests[0].headers["if-unmodified-since"] == HTTPDate.text(Sample.modified))
            #expect(try await source(server.url).current(object.key).object == object)
        }
    }

    /// A wrong answer to a request for ``range``, and what it has to come to.
    struct Wrong: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let reason: FillError.Reason
        var code = FillError.Code.io
        let spoil: @Sendable (inout FaultServer.Reply) -> Void

        static func status(
            _ status: Int, _ reason: FillError.Reason, _ code: FillError.Code = .io, range: String? = nil
        ) -> Wrong {
            Wrong(testDescription: "\(status)", reason: reason, code: code) { reply in
                reply = FaultServer.Reply(status: status, body: Array("an error page".utf8))
                reply.headers["Content-Range"] = range
            }
        }

        static func header(_ name: String, _ value: String?, _ reason: FillError.Reason) -> Wrong {
            Wrong(testDescription: "\(name): \(value ?? "none")", reason: reason) { $0.headers[name] = value }
        }

        static let all: [Wrong] = [
            status(404, .remoteGone), status(410, .remoteGone), status(412, .remoteChanged),
            status(416, .remoteChanged, range: "bytes */5"), status(401, .remoteFailed, .permission),
            status(403, .remoteFailed, .permission), status(400, .remoteFailed), status(429, .remoteFailed),
            status(500, .remoteFailed), status(502, .remoteFailed), status(503, .remoteFailed),
            status(204, .remoteFailed), status(304, .remoteFailed), status(302, .remoteFailed),
            header("ETag", "\"two\"", .remoteChanged), header("ETag", "W/\"one\"", .remoteChanged),
            header("ETag", nil, .remoteFailed), header("Content-Encoding", "gzip", .remoteFailed),
            header("Content-Range", nil, .remoteFailed),
            header("Content-Range", "bytes 0-129999/1000000", .remoteFailed),
            header("Content-Range", "bytes 70000-199998/1000000", .remoteFailed),
            header("Content-Range", "bytes 70000-199999/1000001", .remoteChanged),
            header("Content-Range", "70000-199999/1000000", .remoteFailed),
            header("Content-Type", "multipart/byteranges; boundary=x", .remoteFailed),
            Wrong(testDescription: "a page with 200", reason: .remoteChanged) { reply in
                reply = FaultServer.Reply(headers: ["ETag": "\"page\""], body: Array("please log in".utf8))
            },
            Wrong(testDescription: "a page with 200 and no version", reason: .remoteFailed) { reply in
                reply = FaultServer.Reply(body: [UInt8](repeating: 0x3c, count: 1_000_000))
            },
            Wrong(testDescription: "a page with 200 and the version", reason: .remoteChanged) { reply in
                reply = FaultServer.Reply(headers: ["ETag": "\"one\""], body: Array("please log in".utf8))
            },
            Wrong(testDescription: "fewer bytes, as it says", reason: .remoteFailed) { reply in
                reply.body.removeLast()
            },
            Wrong(testDescription: "no HTTP", reason: .remoteFailed) { reply in reply.raw = "hello\r\n\r\n" },
            Wrong(testDescription: "nothing", reason: .remoteFailed) { reply in reply.raw = "" },
            Wrong(testDescription: "silence", reason: .remoteFailed) { reply in reply.isSilent = true },
        ]
    }

    @Test(arguments: Wrong.all)
    func `of a wrong answer nothing is delivered`(wrong: Wrong) async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = sample.answer(request)
            wrong.spoil(&reply)
            return reply
        } _: { server in
            let isSilent = wrong.testDescription == "silence"
            let source = try source(server.url, idleTimeout: isSilent ? .milliseconds(300) : .seconds(20))
            let outcome = await Outcome(source, sample.object, Self.range)
            #expect(outcome.bytes.isEmpty)
            #expect(outcome.error?.reason == wrong.reason, "\(outcome.error?.cause ?? "no error")")
            #expect(outcome.error?.code == wrong.code)
            #expect(server.requests.count == 1, "it asks once: the engine decides on more")
        }
    }

    @Test func `with a time for a version, another time or length and an answer without are refused`() async throws {
        let changes: [(FillError.Reason, @Sendable (inout FaultServer.Reply) -> Void)] = [
            (.remoteChanged, { $0.headers["Last-Modified"] = HTTPDate.text(Sample.modified + 1) }),
            (.remoteChanged, { $0.headers["Last-Modified"] = HTTPDate.text(Sample.modified - 1) }),
            (.remoteFailed, { $0.headers["Last-Modified"] = nil }),
            (.remoteFailed, { $0.headers["Content-Range"] = "bytes 70000-199999/*" }),
            (.remoteChanged, { $0.headers["Content-Range"] = "bytes 70000-199999/200000" }),
        ]
        for (reason, spoil) in changes {
            var sample = Sample()
            sample.tag = nil
            let fixed = sample
            let server = try FaultServer { request in
                var reply = fixed.answer(request)
                spoil(&reply)
                return reply
            }
            defer { server.stop() }
            let outcome = await Outcome(try source(server.url), sample.object, Self.range)
            #expect(outcome.bytes.isEmpty)
            #expect(outcome.error?.reason == reason, "\(outcome.error?.cause ?? "no error")")
        }
    }

    @Test(arguments: [nil, 0, 1, 70_000, 99_999])
    func `an answer that breaks off is an error behind the bytes that came`(cut: Int?) async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = sample.answer(request)
            reply.cut = cut
            return reply
        } _: { server in
            let outcome = await Outcome(try source(server.url), sample.object, Self.range)
            // What came and was not handed on yet may be lost.
            let isRight = sample.content[Self.range].prefix(cut ?? Int.max).starts(with: outcome.bytes)
            #expect(isRight && (cut != nil || outcome.bytes.count == Self.range.count))
            #expect(outcome.error?.reason == (cut == nil ? nil : .remoteFailed))
        }
    }

    @Test func `fewer bytes than the answer said are an error, also where it ends properly`() async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = sample.answer(request)
            reply.headers["Transfer-Encoding"] = "chunked"
            reply.body = Array("1FBCF\r\n".utf8) + reply.body.dropLast() + Array("\r\n0\r\n\r\n".utf8)
            return reply
        } _: { server in
            let outcome = await Outcome(try source(server.url), sample.object, Self.range)
            #expect(outcome.error?.reason == .remoteFailed)
            let isRight = sample.content[Self.range].starts(with: outcome.bytes)
            #expect(isRight)
        }
    }

    @Test func `more bytes than the answer said are an error`() async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = sample.answer(request)
            reply.headers["Transfer-Encoding"] = "chunked"
            reply.body = Array("1FBD1\r\n".utf8) + reply.body + Array("x\r\n0\r\n\r\n".utf8)
            return reply
        } _: { server in
            let outcome = await Outcome(try source(server.url), sample.object, Self.range)
            #expect(outcome.error?.reason == .remoteFailed)
            let isRight = sample.content[Self.range].starts(with: outcome.bytes)
            #expect(isRight)
        }
    }

    @Test func `a slow answer comes to its end, and ends early when the task is cancelled`() async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = sample.answer(request)
            reply.trickle = 1000
            return reply
        } _: { server in
            let source = try source(server.url)
            let outcome = await Outcome(source, sample.object, 0..<20_000)
            let isSame = outcome.bytes == Array(sample.content[0..<20_000])
            #expect(isSame && outcome.error == nil)
            let task = Task { await Outcome(source, sample.object, 0..<1_000_000) }
            while server.requests.count < 2 { try await Task.sleep(for: .milliseconds(5)) }
            task.cancel()
            #expect(await task.value.error?.reason == .cancelled)
        }
    }

    @Test func `what is not taken is not asked of the connection, and what is given up ends it`() async throws {
        let size = 256 << 20
        let object = RemoteObject(
            key: RemoteKey(Array("file".utf8)), version: RemoteVersion(Array("\"one\"".utf8)), size: size)
        try await withServer { request in
            var reply = FaultServer.Reply(status: 206, body: [UInt8](repeating: 1, count: size))
            reply.headers["ETag"] = "\"one\""
            reply.headers["Content-Range"] = "bytes 0-\(size - 1)/\(size)"
            reply.trickle = 1 << 20
            return reply
        } _: { server in
            let source = try source(server.url)
            var error: FillError?
            do throws(FillError) {
                try await source.read(object, range: 0..<size) { _ throws(FillError) in
                    // Until no more is taken: what the sockets hold is all that is under way.
                    var before = -1
                    while server.sent > before {
                        before = server.sent
                        usleep(500_000)
                    }
                    throw FillError(.io, .remoteFailed, "enough")
                }
            } catch let failure { error = failure }
            #expect(error?.cause == "enough")
            #expect(server.sent < size / 2)
            let end = ContinuousClock.now + .seconds(20)
            while server.connected > 0 && .now < end { try await Task.sleep(for: .milliseconds(10)) }
            #expect(server.connected == 0)
        }
    }

    @Test func `of answers that came and are given up nothing is kept`() async throws {
        var sample = Sample()
        // Behind the first piece there is a little more than waits to be taken, so that the end has come, and is not told.
        let piece = 60_000
        sample.content = [UInt8](repeating: 1, count: 10 * piece)
        let (object, answer) = (sample.object, sample.answer)
        try await withServer { request in
            var reply = answer(request)
            reply.trickle = piece
            return reply
        } _: { server in
            let source = try source(server.url)
            let pool = BlockingPool(name: "test", limit: 20)
            var before = 0
            for round in 0..<10 {
                if round == 2 { before = try Self.residentBytes() }
                await withTaskGroup { group in
                    for _ in 0..<20 {
                        group.addTask(executorPreference: pool) {
                            do throws(FillError) {
                                try await source.read(object, range: 0..<object.size) { _ throws(FillError) in
                                    usleep(200_000)
                                    throw FillError(.io, .remoteFailed, "enough")
                                }
                            } catch { #expect(error.cause == "enough") }
                        }
                    }
                }
            }
            #expect(try Self.residentBytes() - before < 40 << 20)
        }
    }

    private static func residentBytes() throws -> Int {
        let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")[1]
        return (Int(pages) ?? 0) * 4096
    }

    @Test func `a change between two ranges is one, whatever the server thinks of conditions`() async throws {
        let sample = Sample()
        let isNew = Mutex(false)
        try await withServer { request in
            var sample = sample
            if isNew.withLock({ $0 }) { sample.tag = "\"two\"" }
            return sample.answer(request)
        } _: { server in
            let source = try source(server.url)
            #expect(await Outcome(source, sample.object, 0..<1000).error == nil)
            isNew.withLock { $0 = true }
            let outcome = await Outcome(source, sample.object, 1000..<2000)
            #expect(outcome.error?.reason == .remoteChanged && outcome.bytes.isEmpty)
            #expect(try await source.current(sample.object.key).object.version.description == "\"two\"")
        }
    }

    @Test func `a server that is not there may still have the object`() async throws {
        let server = try FaultServer { _ in FaultServer.Reply() }
        server.stop()
        let outcome = await Outcome(try source(server.url), Sample().object, Self.range)
        #expect(outcome.error?.reason == .remoteFailed)
        #expect(outcome.error?.code == .io)
    }

    @Test(arguments: [("7", 7), ("0", 0), ("Sun, 06 Nov 1994 08:49:47 GMT", 10), ("soon", nil), ("-1", nil)])
    func `the time after which to ask again is passed on`(text: String, seconds: Int?) async throws {
        for status in [429, 503] {
            let server = try FaultServer { _ in
                let date = HTTPDate.text(Sample.modified)
                return FaultServer.Reply(status: status, headers: ["Retry-After": text, "Date": date])
            }
            defer { server.stop() }
            let outcome = await Outcome(try source(server.url), Sample().object, Self.range)
            #expect(outcome.error?.retryAfter == seconds.map { .seconds($0) })
        }
    }

    @Test func `no key leads out of the tree, and every byte of one is encoded`() async throws {
        let sample = Sample()
        try await withServer(sample.answer) { server in
            let source = try source(server.url + "top")
            for key in ["../x", "", "/x", "a//b", "a/./b", "a/.."] {
                var object = sample.object
                object.key = RemoteKey(Array(key.utf8))
                #expect(await Outcome(source, object, 0..<1).error?.reason == .remoteFailed, "\(key)")
            }
            #expect(server.requests.isEmpty)
            var object = sample.object
            object.key = RemoteKey(Array("a b/%?#&\\ä\n".utf8))
            #expect(await Outcome(source, object, 0..<1).error == nil)
            #expect(server.requests[0].target == "/top/a%20b/%25%3F%23%26%5C%C3%A4%0A")
            object.key = RemoteKey(object.key.bytes + [0xff])
            #expect(await Outcome(source, object, 0..<1).error?.cause.contains("UTF-8") == true)
            #expect(server.requests.count == 1)
        }
    }
}
