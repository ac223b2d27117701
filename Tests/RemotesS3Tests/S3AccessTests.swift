import FaultServers
import Foundation
import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMRemotes

/// By which way a store is asked, and by whom.
@Suite struct S3AccessTests {
    private static let key = RemoteKey(Array("a b/file".utf8))

    /// Answers HEAD, for whoever has one of these keys.
    private static func answer(
        _ keys: [String]
    ) -> @Sendable (FaultServer.Request) -> FaultServer.Reply {
        { request in
            let isKnown = keys.contains { request.headers["authorization"]?.contains("Credential=\($0)/") == true }
            return isKnown
                ? FaultServer.Reply(headers: ["ETag": "\"one\"", "Content-Length": "3"])
                : FaultServer.Reply(status: 403)
        }
    }

    private static func source(
        _ location: String, _ credentials: [String: String], proxy: String? = nil
    ) throws -> S3Source {
        let environment = ["HOME": "/nonexistent"].merging(credentials) { $1 }
        return try S3Source(
            try BucketAddress(BytePath(location)),
            transport: try HTTPTransport(options: .init(), environment: proxy.map { ["http_proxy": $0] } ?? [:]),
            credentials: try CredentialChain(profile: nil, environment: environment))
    }

    @Test func `a bucket that is a host's name is asked for there, also through a proxy`() async throws {
        let store = try FaultServer(Self.answer(["KEY"]))
        let proxy = try FaultServer { _ in
            var reply = FaultServer.Reply()
            reply.tunnel = store.port
            return reply
        }
        defer { [store, proxy].forEach { $0.stop() } }
        let keys = ["AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret"]
        let hosts = [
            ("s3://bucket/top?style=virtual", "bucket.store.invalid:81", "/top/a%20b/file"),
            ("s3://bucket/top?style=path", "store.invalid:81", "/bucket/top/a%20b/file"),
        ]
        for (location, host, target) in hosts {
            let source = try Self.source(location + "&endpoint=http://store.invalid:81", keys, proxy: proxy.url)
            #expect(try await source.current(Self.key).object.size == 3)
            #expect(proxy.requests.last?.target == host)
            let request = try #require(store.requests.last)
            #expect(request.headers["host"] == host && request.target == target)
        }
    }

    @Test func `credentials that are refused are looked for anew, and not with each request`() async throws {
        try await Self.withProfile("aws_access_key_id=OLD\naws_secret_access_key=s") { environment, change in
            let store = try FaultServer(Self.answer(["NEW"]))
            defer { store.stop() }
            let source = try Self.source("s3://bucket?endpoint=\(store.url)", environment)
            for _ in 0..<3 { #expect(await Self.failure(source)?.code == .permission) }
            #expect(store.requests.count == 3, "nobody is asked again with the same")
            try change("aws_access_key_id=NEW\naws_secret_access_key=s")
            #expect(try await Self.comes { await Self.failure(source) == nil })
            let before = store.requests.count
            #expect(before < 60)
            #expect(await Self.failure(source) == nil)
            #expect(store.requests.count == before + 1, "from now on at once")
        }
    }

    @Test func `credentials of a process are taken, and asked for again before they end`() async throws {
        let folder = NSTemporaryDirectory() + "/passhsm-process-\(UUID().uuidString)"
        mkdir(folder, 0o700)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        // Each call is another key, which ends in half a minute.
        let script = """
            echo x >>"\(folder)/calls"; count=$(wc -l <"\(folder)/calls")
            end=$(date -u -d '+30 seconds' +%Y-%m-%dT%H:%M:%SZ)
            printf '{"Version": 1, "AccessKeyId": "KEY%s", "SecretAccessKey": "s", "Expiration": "%s"}' $count $end
            """
        try Data(script.utf8).write(to: URL(fileURLWithPath: folder + "/script"))
        try await Self.withProfile("credential_process = sh '\(folder)/script'") { environment, change in
            let services = try CredentialServices(try HTTPTransport(options: .init(), environment: [:]))
            func store() throws -> StoreCredentials {
                StoreCredentials(try CredentialChain(profile: nil, environment: environment), services)
            }
            let used = try store()
            #expect(try await used.current() == .init(accessKey: "KEY1", secretKey: "s"))
            #expect(try await used.current()?.accessKey == "KEY1", "it was looked for just now")
            #expect(try await Self.comes { try? await used.current()?.accessKey == "KEY2" })
            for command in ["exit 1", "echo no", "echo '{\"Version\": 2}'", "/nonexistent"] {
                try change("credential_process = \(command)")
                let refused = try store()
                let error = await #expect(throws: FillError.self) { try await refused.current() }
                #expect(error?.code == .permission && error?.cause.contains("credential_process") == true)
            }
            let lasting = "{\"Version\": 1, \"AccessKeyId\": \"K\", \"SecretAccessKey\": \"s\"}"
            try change("credential_process = printf '\(lasting)'")
            let source = try #require(try CredentialChain(profile: nil, environment: environment).source)
            let found = try #require(try await services.credentials(from: source))
            #expect(found.credentials.accessKey == "K" && found.end == nil)
        }
    }

    @Test func `a process that prints half of them and goes on is ended, with those that it started`() throws {
        let begin = ContinuousClock.now
        #expect(throws: LocationError.self) { try CredentialProcess("printf '{'; sleep 20 & sleep 20", timeout: 0.5) }
        #expect(ContinuousClock.now - begin < .seconds(10))
    }

    /// Whether it is so within 20 seconds.
    private static func comes(_ question: () async -> Bool?) async throws -> Bool {
        for _ in 0..<100 {
            if await question() == true { return true }
            try await Task.sleep(for: .milliseconds(200))
        }
        return false
    }

    private static func failure(_ source: S3Source) async -> FillError? {
        do throws(FillError) { _ = try await source.current(key) } catch { return error }
        return nil
    }

    /// An environment whose default profile this is, and how it is changed.
    private static func withProfile(
        _ text: String, _ body: ([String: String], (String) throws -> Void) async throws -> Void
    ) async throws {
        let path = NSTemporaryDirectory() + "/passhsm-profile-\(UUID().uuidString)"
        func write(_ text: String) throws {
            try Data("[default]\n\(text)\n".utf8).write(to: URL(fileURLWithPath: path))
            chmod(path, 0o600)
        }
        try write(text)
        defer { unlink(path) }
        let environment = ["AWS_SHARED_CREDENTIALS_FILE": path, "AWS_CONFIG_FILE": "/nonexistent"]
        try await body(environment, write)
    }
}
