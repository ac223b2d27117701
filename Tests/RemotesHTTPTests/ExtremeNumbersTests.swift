import FaultServers
import HSMCore
import NIOHTTP1
import Testing

@testable import HSMRemotes

/// Every number that a web server, a manifest or a recorded version has, at its ends and beyond: an answer, nil or an error,
/// and never the end of the process.
@Suite struct ExtremeNumbersTests {
    private static let range = 0..<10
    private static let sizes = 0...Int.max

    /// What a text is that holds digits and nothing else.
    private static func plain(_ text: String) -> Int? {
        text.isEmpty || !text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? nil : Int(text)
    }

    @Test(arguments: Extremes.numbers)
    func `ranges and lengths`(number: String) {
        for text in ["bytes 0-9/\(number)", "bytes \(number)-\(number)/*", "bytes 0-\(number)/*", "bytes */\(number)"] {
            guard let content = ContentRange(text) else { continue }
            #expect(Self.plain(number) != nil, "\(text)")
            if let bytes = content.bytes { #expect(bytes.lowerBound >= 0 && bytes.count > 0) }
            if let total = content.total { #expect(total >= 0) }
        }
        let object = RemoteObject(
            key: RemoteKey([0x6b]), version: RemoteVersion(Array("\"e\"".utf8)), size: Self.plain(number) ?? 10)
        for name in ["Content-Length", "Content-Range"] {
            for status in [HTTPResponseStatus.ok, .partialContent] {
                let value = name == "Content-Range" ? "bytes 0-9/\(number)" : number
                let headers = HTTPHeaders([("ETag", "\"e\""), (name, value)])
                _ = try? HTTPAnswer(status: status, headers: headers, range: Self.range, of: object)
            }
        }
    }

    @Test(arguments: Extremes.numbers)
    func `times, pauses and versions`(number: String) throws {
        let time = "10:10:10"
        for text in [
            "Sun, \(number) Nov 1994 \(time) GMT", "Sun, 06 Nov \(number) \(time) GMT",
            "Sun, 06 Nov 1994 \(number):10:10 GMT",
            "Sun, 06 Nov 1994 10:\(number):10 GMT", "Sun, 06 Nov 1994 10:10:\(number) GMT",
        ] {
            guard let seconds = HTTPDate.seconds(text) else { continue }
            #expect(HTTPDate.representable.contains(seconds))
            // Between the parts there are spaces in any case.
            #expect(Self.plain(number.filter { $0 != " " }) != nil, "\(text)")
        }
        let headers = HTTPHeaders([("Retry-After", number)])
        let pause = FillError(status: .tooManyRequests, headers, RemoteKey([]), isConditional: false).retryAfter
        #expect((pause != nil) == (Self.plain(number) != nil))
        for text in ["m\(number)-1", "m1-\(number)", "m\(number)-\(number)"] {
            guard let tag = HTTPVersionTag(RemoteVersion(Array(text.utf8))) else { continue }
            var headers = HTTPHeaders()
            tag.addCondition(to: &headers)
            guard case .modified(let seconds, let size) = tag else { continue }
            #expect(HTTPDate.representable.contains(seconds) && Self.sizes.contains(size))
        }
        for seconds in [Int.min, Int.max] { #expect(HTTPDate.seconds(HTTPDate.text(seconds)) != nil) }
    }

    @Test(arguments: Extremes.numbers)
    func `manifests`(number: String) {
        for line in [
            #"{"path": "a", "size": \#(number)}"#, #"{"path": "a", "size": 1, "mtime": \#(number)}"#,
            #"{"path": "a", "size": 1, "mtime": -\#(number)}"#, #"{"path": "a", "size": 1, "mode": "\#(number)"}"#,
        ] {
            guard let entry = try? HTTPManifest(Array(line.utf8)).entries.first else { continue }
            #expect(entry.size >= 0)
            #expect((entry.permissions ?? 0) <= 0o7777)
            #expect(line.contains("mode") && entry.permissions != nil ? Self.plain(number) != nil : true)
            if let time = entry.modified { #expect((0..<1_000_000_000).contains(time.nanoseconds)) }
        }
    }

    @Test(arguments: ["9223372036854775808", "-1", "+5", "", "x"])
    func `a size that is none is that file's error`(length: String) async throws {
        let page = HTTPListingTests.page("<title>Index of</title><a href=a>a</a><a href=b>b</a>")
        try await withServer({ request in
            if request.target == "/" { return page }
            if request.target == "/b" { return HTTPListingTests.serve(["/b": HTTPListingTests.file("1")])(request) }
            var reply = FaultServer.Reply()
            reply.raw = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: \(length)\r\n\r\n"
            return reply
        }) { server in
            let events = try await HTTPListingTests.events(source(server.url))
            #expect(events == ["enter ", "unreadable a", "file b 1", "leave"])
        }
    }
}
