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
