import FaultServers
import Foundation
import Glibc
import HSMCore
import Synchronization
import Testing

@testable import HSMRemotes

/// Credentials of roles, containers and instances, from services that answer as AWS's do, or otherwise.
@Suite struct CredentialServicesTests {
    private static let keys = CredentialSource.keys(.init(accessKey: "OWN", secretKey: "secret"))

    private static func ask(_ source: CredentialSource) async throws -> TemporaryCredentials? {
        let transport = try HTTPTransport(options: .init(), environment: [:])
        return try await CredentialServices(transport).credentials(from: source)
    }

    private static func failure(_ source: CredentialSource) async -> FillError? {
        do { _ = try await ask(source) } catch { return error as? FillError }
        return nil
    }

    private static func role(_ server: FaultServer, _ path: String = "") -> AssumedRole {
        AssumedRole(arn: "arn:aws:iam::1:role/R", session: "me", service: server.url + path, region: "eu-west-1")
    }

    private static func date(in seconds: Double) -> String {
        Date(timeIntervalSinceNow: seconds).formatted(.iso8601)
    }

    private static func xml(_ action: String, _ key: String, seconds: Double = 3600) -> FaultServer.Reply {
        let text = """
            <\(action)Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><\(action)Result>
              <AssumedRoleUser><Arn>a</Arn></AssumedRoleUser>
              <Credentials><AccessKeyId>\(key)</AccessKeyId><SecretAccessKey>s/+</SecretAccessKey>
                <SessionToken>t&amp;t</SessionToken><Expiration>\(date(in: seconds))</Expiration></Credentials>
            </\(action)Result></\(action)Response>
            """
        return FaultServer.Reply(body: Array(text.utf8))
    }

    private static func json(_ key: String, code: String = "") -> FaultServer.Reply {
        let text = """
            {\(code) "AccessKeyId": "\(key)", "SecretAccessKey": "s", "Token": "t", "Expiration": "\(date(in: 3600))"}
            """
        return FaultServer.Reply(body: Array(text.utf8))
    }

    private static func parameters(_ text: some StringProtocol) -> [String: String] {
        var result: [String: String] = [:]
        for part in String(text).components(separatedBy: "&") {
            let sides = part.components(separatedBy: "=")
            result[sides[0]] = sides[1].removingPercentEncoding
        }
        return result
    }

    private static func expectGood(_ found: TemporaryCredentials?, _ keys: RequestSignature.Credentials) throws {
        let found = try #require(found)
        #expect(found.credentials == keys)
        let left = try #require(found.end) - .now
        #expect(left > .seconds(3500) && left < .seconds(3610))
    }

    /// As the services, Python's and Go's programs write it.
    @Test(arguments: [
        "2100-01-02T03:04:05Z", "2100-01-02T03:04:05+00:00", "2100-01-02T03:04:05.123456Z", "2100-01-02T05:04:05+02:00",
    ])
    func `the end of credentials is a time of ISO 8601`(_ text: String) throws {
        let json = #"{"Version": 1, "AccessKeyId": "K", "SecretAccessKey": "s", "Expiration": "\#(text)"}"#
        let found = try #require(TemporaryCredentials(json: Array(json.utf8), version: 1))
        let end = try #require(found.end)
        let expected = Duration.seconds(4_102_542_245 - Date().timeIntervalSince1970)
        #expect(abs((end - .now - expected) / .seconds(1)) < 2)
        #expect(TemporaryCredentials(json: Array(json.replacing(text, with: "soon").utf8), version: 1) == nil)
    }

    @Test func `a role is asked for with its source's signature, and a chain of roles one after the other`()
        async throws
    {
        let server = try FaultServer { request in
            let signer = request.headers["authorization"] ?? ""
            return Self.xml("AssumeRole", signer.contains("Credential=OWN/") ? "FIRST" : "SECOND")
        }
        defer { server.stop() }
        var role = Self.role(server)
        (role.externalID, role.duration) = ("e/x", 900)
        let good = RequestSignature.Credentials(accessKey: "FIRST", secretKey: "s/+", sessionToken: "t&t")
        try Self.expectGood(try await Self.ask(.role(role, of: Self.keys)), good)
        let request = try #require(server.requests.last)
        let target = request.target.components(separatedBy: "?")
        #expect(request.method == "GET" && target[0] == "/")
        #expect(
            Self.parameters(target[1]) == [
                "Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": role.arn, "RoleSessionName": "me",
                "ExternalId": "e/x", "DurationSeconds": "900",
            ])
        #expect(
            request.headers["authorization"]?.contains("/eu-west-1/sts/aws4_request, SignedHeaders=host;x-amz-date,")
                == true)
        let second = try await Self.ask(.role(Self.role(server), of: .role(Self.role(server), of: Self.keys)))
        #expect(second?.credentials.accessKey == "SECOND")
        #expect(server.requests.last?.headers["x-amz-security-token"] == "t&t")
    }

    @Test func `a web identity's token is read each time, and sent in the body alone`() async throws {
        let path = NSTemporaryDirectory() + "/passhsm-token-\(UUID().uuidString)"
        defer { unlink(path) }
        let server = try FaultServer { _ in Self.xml("AssumeRoleWithWebIdentity", "WEB") }
        defer { server.stop() }
        let source = CredentialSource.webIdentity(Self.role(server), tokenFile: path)
        let missing = await Self.failure(source)
        #expect(missing?.code == .permission && missing?.cause.contains(path) == true)
        for token in ["to.ken-1", "to+ken/2="] {
            try Data((token + "\n").utf8).write(to: URL(fileURLWithPath: path))
            try Self.expectGood(
                try await Self.ask(source), .init(accessKey: "WEB", secretKey: "s/+", sessionToken: "t&t"))
            let request = try #require(server.requests.last)
            #expect(request.method == "POST" && request.target == "/" && request.headers["authorization"] == nil)
            #expect(request.headers["content-type"] == "application/x-www-form-urlencoded")
            #expect(
                Self.parameters(String(decoding: request.body, as: UTF8.self)) == [
                    "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": Self.role(server).arn,
                    "RoleSessionName": "me", "WebIdentityToken": token,
                ])
        }
    }

    @Test func `a container's service is shown the token that there is`() async throws {
        let server = try FaultServer { request in
            request.headers["authorization"] == "tok" && request.target == "/v2/x?id=1"
                ? Self.json("BOX") : FaultServer.Reply(status: 403)
        }
        defer { server.stop() }
        let url = server.url + "v2/x?id=1"
        let good = RequestSignature.Credentials(accessKey: "BOX", secretKey: "s", sessionToken: "t")
        try Self.expectGood(try await Self.ask(.container(url: url, .token("tok"))), good)
        let path = NSTemporaryDirectory() + "/passhsm-token-\(UUID().uuidString)"
        try Data("tok\n".utf8).write(to: URL(fileURLWithPath: path))
        defer { unlink(path) }
        try Self.expectGood(try await Self.ask(.container(url: url, .file(path))), good)
        let refused = await Self.failure(.container(url: url, .nothing))
        #expect(refused?.code == .permission && refused?.isOutage == false)
    }

    @Test func `an instance's service is asked with its session, and one without a role gives none`() async throws {
        let server = try FaultServer { request in
            if request.method == "PUT", request.target == "/latest/api/token",
                request.headers["x-aws-ec2-metadata-token-ttl-seconds"] != nil
            {
                return FaultServer.Reply(body: Array("session".utf8))
            }
            guard request.method == "GET", request.headers["x-aws-ec2-metadata-token"] == "session" else {
                return FaultServer.Reply(status: 401)
            }
            switch request.target {
            case "/latest/meta-data/iam/security-credentials/": return FaultServer.Reply(body: Array("my role\n".utf8))
            case "/latest/meta-data/iam/security-credentials/my%20role":
                return Self.json("BOX", code: "\"Code\": \"Success\",")
            default: return FaultServer.Reply(status: 404)
            }
        }
        defer { server.stop() }
        let good = RequestSignature.Credentials(accessKey: "BOX", secretKey: "s", sessionToken: "t")
        try Self.expectGood(try await Self.ask(.instance(service: String(server.url.dropLast()))), good)
        let bare = try FaultServer { request in
            request.method == "PUT" ? FaultServer.Reply(body: Array("session".utf8)) : FaultServer.Reply(status: 404)
        }
        defer { bare.stop() }
        let service = String(bare.url.dropLast())
        #expect(try await Self.ask(.instance(service: service)) == nil)
        let role = await Self.failure(.role(Self.role(bare), of: .instance(service: service)))
        #expect(role?.code == .permission && role?.cause.contains("role/R") == true)
    }

    @Test func `what a service refuses is not asked again, and says why; its own faults may pass`() async throws {
        let answer = Mutex(FaultServer.Reply())
        let server = try FaultServer { _ in answer.withLock { $0 } }
        defer { server.stop() }
        let denied = """
            <ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>
            """
        let role = CredentialSource.role(Self.role(server), of: Self.keys)
        let box = CredentialSource.container(url: server.url, .nothing)
        let instance = CredentialSource.instance(service: String(server.url.dropLast()))
        func expect(
            _ reply: FaultServer.Reply, _ code: FillError.Code, _ cause: String, of sources: [CredentialSource]
        ) async {
            answer.withLock { $0 = reply }
            for source in sources {
                let error = await Self.failure(source)
                #expect(error?.code == code && error?.isOutage == false && error?.reason == .remoteFailed)
                #expect(
                    error?.cause.contains(cause) == true && error?.cause.contains("secret") == false,
                    "\(error?.cause ?? "")")
            }
        }
        await expect(.init(status: 403, body: Array(denied.utf8)), .permission, "AccessDenied not you", of: [role])
        await expect(.init(status: 403), .permission, "403", of: [role, box, instance])
        for status in [429, 500, 503] {
            await expect(.init(status: status), .io, "\(status)", of: [role, box, instance])
        }
        await expect(.init(body: Array("<a/>".utf8)), .io, "no valid credentials", of: [role, box])
        await expect(
            .init(body: Array("{\"Code\": \"Failed\"}".utf8)), .io, "no valid credentials", of: [role, box, instance])
        server.stop()
        for source in [role, box, instance] {
            let error = await Self.failure(source)
            #expect(error?.code == .io && error?.isOutage == false && error?.cause.contains("cannot be asked") == true)
            #expect(error?.cause.contains("127.0.0.1:\(server.port)/") == false, "a container's URL is a secret")
        }
    }

    @Test func `credentials are renewed before they end, nobody waits for that, and one look serves all`() async throws
    {
        let count = Mutex(0)
        let released = Mutex(false)
        let server = try FaultServer { _ in
            let number = count.withLock { count in
                count += 1
                return count
            }
            if number == 1 { return Self.xml("AssumeRole", "KEY1", seconds: 40) }
            for _ in 0..<1000 where !released.withLock({ $0 }) { usleep(10_000) }
            return Self.xml("AssumeRole", "KEY2")
        }
        defer { server.stop() }
        let store = try Self.store(server)
        try await withThrowingTaskGroup { group in
            for _ in 0..<20 {
                group.addTask {
                    let key = try await store.current()?.accessKey
                    #expect(key == "KEY1")
                }
            }
            try await group.waitForAll()
        }
        #expect(server.requests.count == 1)
        // Others are looked for five seconds after the last look at the soonest; until they are there, these are good.
        for _ in 0..<300 where server.requests.count == 1 {
            #expect(try await store.current()?.accessKey == "KEY1")
            try await Task.sleep(for: .milliseconds(50))
        }
        #expect(server.requests.count == 2)
        #expect(try await store.current()?.accessKey == "KEY1", "nobody waits for others")
        released.withLock { $0 = true }
        for _ in 0..<300 where try await store.current()?.accessKey == "KEY1" {
            try await Task.sleep(for: .milliseconds(50))
        }
        #expect(try await store.current()?.accessKey == "KEY2" && server.requests.count == 2)
        // Good for long: what the store refuses now it does not refuse for their age.
        let used = try await store.current()
        #expect(await store.others(than: used) == nil && server.requests.count == 2)
    }

    @Test func `a service that fails is asked again by who asks again, and what it refuses is not`() async throws {
        let status = Mutex(503)
        let server = try FaultServer { request in
            let now = status.withLock { status in
                defer { if status == 503 { status = 200 } }
                return status
            }
            return now == 200 ? Self.xml("AssumeRole", "KEY") : FaultServer.Reply(status: now)
        }
        defer { server.stop() }
        let store = try Self.store(server)
        let keys = try await RetryPolicy().retrying { () throws(FillError) in try await store.current() }
        #expect(keys?.accessKey == "KEY" && server.requests.count == 2)
        status.withLock { $0 = 403 }
        let refused = try Self.store(server)
        for _ in 0..<3 {
            let error = await #expect(throws: FillError.self) {
                _ = try await RetryPolicy().retrying { () throws(FillError) in try await refused.current() }
            }
            #expect(error?.code == .permission)
        }
        #expect(server.requests.count == 3)
    }

    /// The credentials of a profile whose role this token service gives.
    private static func store(_ server: FaultServer) throws -> StoreCredentials {
        let path = NSTemporaryDirectory() + "/passhsm-config-\(UUID().uuidString)"
        try Data("[profile p]\nrole_arn = R\ncredential_source = Environment\n".utf8).write(
            to: URL(fileURLWithPath: path))
        // What was read of it is enough.
        defer { unlink(path) }
        let environment = CredentialChainTests.nowhere.merging([
            "AWS_ACCESS_KEY_ID": "OWN", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL_STS": server.url,
            "AWS_CONFIG_FILE": path,
        ]) { $1 }
        return StoreCredentials(
            try CredentialChain(profile: "p", environment: environment),
            try CredentialServices(try HTTPTransport(options: .init(), environment: [:])))
    }
}
