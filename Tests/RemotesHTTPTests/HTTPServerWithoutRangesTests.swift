import FaultServers
import HSMCore
import HSMRemotes
import Synchronization
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

    @Test func `an object that is read from front to back, by many at once, is sent once`() async throws {
        let sample = Sample()
        try await withServer { request in
            var reply = Self.whole(sample)(request)
            reply.trickle = 10_000
            return reply
        } _: { server in
            let source = try source(server.url)
            // The first read finds out, the second has the body while the others come.
            _ = await Outcome(source, sample.object, 0..<1)
            let starts = [1] + stride(from: 200_000, to: 1_000_000, by: 100_000).shuffled()
            let areRight = await withTaskGroup(of: Bool.self) { group in
                for start in starts {
                    let range = start..<(start == 1 ? 200_000 : start + 100_000)
                    group.addTask { await Outcome(source, sample.object, range).bytes == Array(sample.content[range]) }
                    if start == 1 { try? await Task.sleep(for: .milliseconds(20)) }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
            #expect(areRight.count == starts.count && areRight.allSatisfy { $0 })
            // One that comes late begins anew.
            #expect(server.requests.count < 4)
            let before = server.requests.count
            for start in stride(from: 0, to: 1_000_000, by: 100_000) {
                let outcome = await Outcome(source, sample.object, start..<start + 100_000)
                let isRight = outcome.bytes == Array(sample.content[start..<start + 100_000])
                #expect(isRight)
            }
            #expect(server.requests.count == before + 1)
        }
    }

    @Test func `a reader that gives up, or breaks off, holds nobody up`() async throws {
        let sample = Sample()
        let isSlow = Mutex(false)
        try await withServer { request in
            var reply = Self.whole(sample)(request)
            if isSlow.withLock({ $0 }) { reply.trickle = 1000 }
            return reply
        } _: { server in
            let source = try source(server.url)
            #expect(await Outcome(source, sample.object, 0..<1000).error == nil)
            isSlow.withLock { $0 = true }
            _ = await Outcome(source, sample.object, 0..<1000)
            let first = Task { await Outcome(source, sample.object, 500_000..<600_000) }
            let second = Task { await Outcome(source, sample.object, 900_000..<900_010) }
            while server.requests.count < 2 { try await Task.sleep(for: .milliseconds(5)) }
            second.cancel()
            #expect(await second.value.error?.reason == .cancelled)
            first.cancel()
            #expect(await first.value.error?.reason == .cancelled)
            isSlow.withLock { $0 = false }
            let outcome = await Outcome(source, sample.object, 400_000..<400_010)
            #expect(outcome.bytes == Array(sample.content[400_000..<400_010]))
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
