import FaultServers
import HSMCore
import HSMRemotes
import HSMSystem
import Testing

@Suite struct HTTPManifestTests {
    static let digest = String(repeating: "ab", count: 32)

    @Test func `a manifest lists the files, and the server says which version each has`() async throws {
        let pages = ["/b/c": "abc", "/b/d/e": "abcd", "/a": "a", "/b-": "", "/wrong": "four"]
        let manifest = """
            {"path": "b/d/e", "size": 4, "mtime": 1700000000.25, "mode": "0751", "sha256": "\(Self.digest)"}

            {"path":"a","size":1,"other":[1]}
            {"path": "wrong", "size": 5}\r
            {"path": "b/c", "size": 3, "mtime": -1.5}
            {"path": "missing", "size": 3}
            {"path": "b-", "size": 0}
            """
        try await withServer(HTTPListingTests.serve(pages.mapValues { HTTPListingTests.file($0) })) { server in
            let source = try source(server.url, manifest: manifest)
            #expect(
                try await HTTPListingTests.events(source) == [
                    "enter ", "file a 1", "file b- 0", "enter b", "file b/c 3", "enter b/d", "file b/d/e 4", "leave",
                    "leave", "unreadable missing", "unreadable wrong", "leave",
                ])
            var entries: [String: RemoteEntry] = [:]
            try await source.list { event in
                if case .entry(let entry) = event { entries[String(decoding: entry.name, as: UTF8.self)] = entry }
            }
            let entry = try #require(entries["e"])
            #expect(entry.metadata.permissions == 0o751)
            #expect(entry.metadata.modificationTime == .init(seconds: 1_700_000_000, nanoseconds: 250_000_000))
            guard case .file(let object) = entry.kind else { return #expect(Bool(false)) }
            #expect(object.digest?.description == "sha256:\(Self.digest)")
            #expect(object.version.description == "\"t\"")
            #expect(entries["c"]?.metadata.modificationTime == .init(seconds: -2, nanoseconds: 500_000_000))
            #expect(entries["a"]?.metadata.modificationTime?.seconds == Sample.modified)
        }
    }

    @Test func `a manifest comes from a file or a server, which is told a secret only when it is the source's`()
        async throws
    {
        let line = "{\"path\": \"a\", \"size\": 1}\n"
        let replies: @Sendable (FaultServer.Request) -> FaultServer.Reply = { request in
            switch request.target {
            case "/list": FaultServer.Reply(body: Array(line.utf8))
            case "/moved": FaultServer.Reply(status: 302, headers: ["Location": "/list"])
            default: FaultServer.Reply(status: 404)
            }
        }
        let own = try FaultServer(replies)
        let other = try FaultServer(replies)
        defer { [own, other].forEach { $0.stop() } }
        let address = try WebAddress(BytePath(own.url + "tree"))
        let transport = try HTTPTransport(options: .init(), environment: [:])
        let secret = try HTTPCredentials(host: "127.0.0.1", environment: ["PASSHSM_HTTP_BEARER": "s3"])
        for place in [own.url + "list", own.url + "moved", other.url + "list"] {
            let manifest = try HTTPManifest(BytePath(place), of: address, transport, secret)
            #expect(manifest.entries.map(\.path) == [Array("a".utf8)])
        }
        #expect(own.requests.allSatisfy { $0.headers["authorization"] == "Bearer s3" })
        #expect(other.requests.map { $0.headers["authorization"] } == [nil])
        let error = #expect(throws: LocationError.self) {
            try HTTPManifest(BytePath(own.url + "none"), of: address, transport, secret)
        }
        #expect(error?.description.contains("404") == true)
        try await HTTPAccessTests.temporary(line, mode: 0o644) { path in
            let manifest = try HTTPManifest(BytePath(path), of: address, transport, secret)
            #expect(manifest.entries.count == 1)
        }
    }

    @Test(arguments: [
        ("{\"path\":\"a\",\"size\":1}\n{\"path\":\"b\"", "line 2"), ("\n\n[]", "line 3"),
        ("{\"path\":\"a\"}", "line 1"),
        ("{\"path\":\"a\",\"size\":\"1\"}", "line 1"), ("{\"path\":\"a\",\"size\":-1}", "negative"),
        ("{\"path\":\"a\",\"size\":1.5}", "line 1"), ("{\"path\":\"../a\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"a/../b\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"/a\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"a//b\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"a/\",\"size\":1}", "does not lead below"),
        ("{\"path\":\"a\\u0000b\",\"size\":1}", "does not lead below"),
        ("{\"path\":\".passhsm/x\",\"size\":1}", ".passhsm"), ("{\"path\":\"a\",\"size\":1,\"mode\":\"9\"}", "octal"),
        ("{\"path\":\"a\",\"size\":1,\"mode\":\"10000\"}", "octal"),
        ("{\"path\":\"a\",\"size\":1,\"sha256\":\"ab\"}", "64"),
        ("{\"path\":\"a\",\"size\":1,\"mtime\":1e300}", "mtime"),
        ("{\"path\":\"a\",\"size\":1}\n{\"path\":\"b\",\"size\":1}\n{\"path\":\"a\",\"size\":1}", "twice"),
        (
            "{\"path\":\"a\",\"size\":1}\n{\"path\":\"a!\",\"size\":1}\n{\"path\":\"a/b/c\",\"size\":1}",
            "line 3: a/b/c is below"
        ),
    ])
    func `a bad line is one clear error with its number`(text: String, part: String) {
        let error = #expect(throws: LocationError.self) { try HTTPManifest(Array(text.utf8)) }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
        #expect(error?.description.hasPrefix("the manifest's line ") == true)
        #expect(error?.description.contains("\n") == false)
    }
}
