import HSMCore
import HSMRemotesHTTP
import Testing

@Suite struct HTTPServerWithoutRangesTests {
    /// Answers every request with the whole object.
    static func whole(_ sample: Sample) -> @Sendable (FaultServer.Request) -> FaultServer.Reply {
        { request in
            var reply = sample.answer(request)
            guard request.method == "GET" else { return reply }
            reply.status = 200
            reply.headers["Content-Range"] = nil
            reply.body = sample.content
            return reply
        }
    }

    @Test func `a part that is called 200 is believed only when it is said which, and its length fits`() async throws {
        let sample = Sample()
        let parts: [(String?, Int?, Bool)] = [
            ("bytes 70000-199999/1000000", 130_000, true), ("bytes 70000-199999/1000000", nil, false),
            ("bytes 0-129999/1000000", 130_000, false), (nil, 130_000, false),
        ]
        for (range, length, isGood) in parts {
            try await withServer { request in
                var reply = sample.answer(request)
                reply.status = 200
                reply.headers["Content-Range"] = range
                if length == nil {
                    reply.headers["Transfer-Encoding"] = "chunked"
                    reply.body = Array("1FBD0\r\n".utf8) + reply.body + Array("\r\n0\r\n\r\n".utf8)
                }
                return reply
            } _: { server in
                let outcome = await Outcome(try source(server.url), sample.object, 70_000..<200_000)
                let isRight = outcome.bytes == (isGood ? Array(sample.content[70_000..<200_000]) : [])
                #expect(isRight && (outcome.error == nil) == isGood, "\(range ?? "no range"), \(length ?? 0)")
            }
        }
    }

    @Test func `no byte is taken for another's: the beginning is passed over`() async throws {
        for tag in ["\"one\"", nil] {
            var sample = Sample()
            sample.tag = tag
            try await withServer(Self.whole(sample)) { server in
                let source = try source(server.url)
                for range in [0..<1_000_000, 0..<10, 500_000..<600_000, 999_990..<1_000_000, 70_000..<70_001] {
                    let outcome = await Outcome(source, sample.object, range)
                    #expect(outcome.error == nil)
                    let isSame = outcome.bytes == Array(sample.content[range])
                    #expect(isSame, "\(range)")
                }
            }
        }
    }
}
