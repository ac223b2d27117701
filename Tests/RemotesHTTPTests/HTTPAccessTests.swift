import FaultServers
import Foundation
import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMRemotes

/// Who asks, by which way, and where to.
@Suite struct HTTPAccessTests {
    static func temporary(_ text: String, mode: mode_t, _ body: (String) async throws -> Void) async throws {
        let path = NSTemporaryDirectory() + "/passhsm-secret-\(UUID().uuidString)"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        chmod(path, mode)
        defer { unlink(path) }
        try await body(path)
    }

    /// What the server is told with this environment.
    static func authorization(_ environment: [String: String]) async throws -> String? {
        let sample = Sample()
        let server = try FaultServer(sample.answer)
        defer { server.stop() }
        _ = await Outcome(try source(server.url, environment: environment), sample.object, 0..<1)
        return try #require(server.requests.first).headers["authorization"]
    }

    @Test func `a server is told the bearer token, or user and password, or nothing`() async throws {
        #expect(try await Self.authorization([:]) == nil)
        #expect(try await Self.authorization(["PASSHSM_HTTP_BEARER": "s3"]) == "Bearer s3")
        let basic = ["PASSHSM_HTTP_USER": "Aladdin", "PASSHSM_HTTP_PASSWORD": "open sesame"]
        #expect(try await Self.authorization(basic) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        try await Self.temporary(" token\n", mode: 0o640) { path in
            let told = try await Self.authorization(["PASSHSM_HTTP_BEARER_FILE": path])
            #expect(told == "Bearer token")
        }
        let netrc = """
            # machine 127.0.0.1 login no password no
            machine other login a password b
            macdef init
            machine 127.0.0.1 login macro password x

            machine 127.0.0.1
              password sesame login Aladdin
            default login c password d
            """
        try await Self.temporary(netrc, mode: 0o600) { path in
            let told = try await Self.authorization(["NETRC": path])
            #expect(told == "Basic QWxhZGRpbjpzZXNhbWU=")
            #expect(HTTPCredentials.netrcEntry(for: "elsewhere", in: netrc)?.login == "c")
            #expect(HTTPCredentials.netrcEntry(for: "x", in: "machine y login z password z") == nil)
            let withReturns = netrc.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\r\n")
            #expect(HTTPCredentials.netrcEntry(for: "elsewhere", in: withReturns)?.login == "c")
        }
    }

    @Test func `a secret that everyone may read is refused, and a missing file too`() async throws {
        for variable in ["NETRC", "PASSHSM_HTTP_BEARER_FILE"] {
            try await Self.temporary("machine h login l password geheim", mode: 0o604) { path in
                let error = #expect(throws: LocationError.self) {
                    try HTTPCredentials(host: "h", environment: [variable: path])
                }
                #expect(error?.description.contains("chmod 600") == true)
                #expect(error?.description.contains("geheim") == false)
            }
        }
        #expect(throws: LocationError.self) {
            try HTTPCredentials(host: "h", environment: ["PASSHSM_HTTP_BEARER_FILE": "/nonexistent"])
        }
        #expect(try HTTPCredentials(host: "h", environment: ["NETRC": "/nonexistent"]).authorization == nil)
    }

    @Test func `redirects are followed, and no secret goes to another server`() async throws {
        let sample = Sample()
        let other = try FaultServer(sample.answer)
        defer { other.stop() }
        let elsewhere = other.url + "moved"
        let server = try FaultServer { request in
            switch request.target {
            case "/file": FaultServer.Reply(status: 302, headers: ["Location": "/there"])
            case "/there": FaultServer.Reply(status: 307, headers: ["Location": elsewhere])
            default: FaultServer.Reply(status: 301, headers: ["Location": request.target])
            }
        }
        defer { server.stop() }
        let source = try source(server.url, environment: ["PASSHSM_HTTP_BEARER": "s3"])
        let outcome = await Outcome(source, sample.object, 10..<20)
        #expect(outcome.bytes == Array(sample.content[10..<20]))
        #expect(server.requests.map(\.target) == ["/file", "/there"])
        #expect(server.requests.allSatisfy { $0.headers["authorization"] == "Bearer s3" })
        #expect(other.requests.map(\.target) == ["/moved"])
        #expect(other.requests[0].headers["authorization"] == nil)
        #expect(other.requests[0].headers["if-match"] == "\"one\"")
        var circle = sample.object
        circle.key = RemoteKey(Array("circle".utf8))
        #expect(await Outcome(source, circle, 0..<1).error?.reason == .remoteFailed)
    }

    @Test func `a proxy of the environment is asked to connect, but not for its exceptions`() async throws {
        let proxy = try FaultServer { _ in FaultServer.Reply(status: 403) }
        defer { proxy.stop() }
        let sample = Sample()
        try await withServer(sample.answer) { server in
            let address = "http://us%65r:pass@127.0.0.1:\(proxy.port)"
            let outcome = await Outcome(
                try source(server.url, environment: ["http_proxy": address]), sample.object, 0..<9)
            #expect(outcome.error?.reason == .remoteFailed)
            #expect(outcome.error?.cause.contains("pass") == false)
            let request = try #require(proxy.requests.first)
            #expect(request.method == "CONNECT" && request.target == "127.0.0.1:\(server.port)")
            #expect(request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz")
            #expect(server.requests.isEmpty)
            let exception = ["http_proxy": address, "no_proxy": "x, 127.0.0.1"]
            #expect(await Outcome(try source(server.url, environment: exception), sample.object, 0..<9).error == nil)
            #expect(proxy.requests.count == 1)
        }
    }

    @Test func `content comes through a proxy, which looks the server's name up`() async throws {
        let sample = Sample()
        try await withServer(sample.answer) { server in
            let proxy = try FaultServer { _ in
                var reply = FaultServer.Reply()
                reply.tunnel = server.port
                return reply
            }
            defer { proxy.stop() }
            let source = try source("http://nowhere.invalid:81/", environment: ["all_proxy": proxy.url])
            for range in [10..<20, 0..<1_000_000] {
                let outcome = await Outcome(source, sample.object, range)
                let isSame = outcome.bytes == Array(sample.content[range])
                #expect(isSame && outcome.error == nil, "\(outcome.error?.cause ?? "")")
            }
            #expect(proxy.requests.map(\.target) == ["nowhere.invalid:81"], "one connection for both")
            #expect(server.requests.allSatisfy { $0.headers["host"] == "nowhere.invalid:81" })
        }
    }

    @Test func `the environment's proxies are curl's`() throws {
        let rules = try ProxyRules(environment: [
            "http_proxy": "a:1", "HTTPS_PROXY": "http://[::1]:2/", "NO_PROXY": "local,.example.org  10.0.0.1",
        ])
        #expect(rules.proxy(for: "h", isEncrypted: false) == .init(host: "a", port: 1, credentials: nil))
        #expect(rules.proxy(for: "h", isEncrypted: true) == .init(host: "::1", port: 2, credentials: nil))
        for host in ["local", "x.local", "example.org", "www.example.org", "10.0.0.1"] {
            #expect(rules.proxy(for: host, isEncrypted: true) == nil, "\(host)")
        }
        #expect(rules.proxy(for: "notlocal", isEncrypted: true) != nil)
        #expect(try ProxyRules(environment: ["HTTP_PROXY": "a:1"]).proxy(for: "h", isEncrypted: false) == nil)
        #expect(
            try ProxyRules(environment: ["ALL_PROXY": "a:1", "no_proxy": "*"]).proxy(for: "h", isEncrypted: true) == nil
        )
        #expect(try ProxyRules(environment: ["ALL_PROXY": "a:1"]).proxy(for: "h", isEncrypted: true)?.host == "a")
        #expect(throws: LocationError.self) { try ProxyRules(environment: ["http_proxy": "socks5://a:1"]) }
    }

    @Test func `what fails below HTTP is told in plain words, with the address`() async throws {
        let sample = Sample()
        let server = try FaultServer(sample.answer)
        let closed = server.url
        server.stop()
        let refused = await Outcome(try source(closed), sample.object, 0..<1).error
        #expect(refused?.cause == "\(closed)file: Connection refused (errno 111)")
        let unknown = await Outcome(try source("http://no-such-host.invalid/"), sample.object, 0..<1).error
        #expect(
            unknown?.cause == "http://no-such-host.invalid/file: the address of no-such-host.invalid cannot be found")
    }
}
