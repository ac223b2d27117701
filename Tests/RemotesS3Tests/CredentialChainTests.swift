import Foundation
import Glibc
import Testing

@testable import HSMRemotes

@Suite struct CredentialChainTests {
    static let credentials = """
        [default]
        aws_access_key_id = DEFAULT
        aws_secret_access_key=first

        # [work]
        [ work ]
        aws_access_key_id=WORK
        aws_secret_access_key = se=cret/+
        aws_session_token = token
        s3 =
          aws_access_key_id = nested
        """
    static let config = """
        [default]
        region = eu-west-1
        [profile work]
        region=eu-north-1
        endpoint_url = http://store:9000
        ; region = no
        """

    /// Without files, and on no instance.
    static let nowhere = ["HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"]

    /// An environment with these files, which are removed afterwards.
    static func withFiles(mode: mode_t = 0o600, config: String = config, _ body: ([String: String]) throws -> Void)
        throws
    {
        let folder = NSTemporaryDirectory() + "/passhsm-aws-\(UUID().uuidString)"
        mkdir(folder, 0o700)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for (name, text) in [("credentials", credentials), ("config", config)] {
            try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
            chmod("\(folder)/\(name)", mode)
        }
        try body(["AWS_SHARED_CREDENTIALS_FILE": folder + "/credentials", "AWS_CONFIG_FILE": folder + "/config"])
    }

    @Test func `the environment comes before the files, and a profile that was named before both`() throws {
        try Self.withFiles { files in
            let keys = ["AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"]
            let chain = try CredentialChain(profile: nil, environment: files)
            #expect(chain.source == .keys(.init(accessKey: "DEFAULT", secretKey: "first")))
            #expect(chain.region == "eu-west-1" && chain.endpoint == nil)
            let work = RequestSignature.Credentials(accessKey: "WORK", secretKey: "se=cret/+", sessionToken: "token")
            for (named, more) in [("work", keys), (nil, ["AWS_PROFILE": "work"])] {
                let chain = try CredentialChain(profile: named, environment: files.merging(more) { $1 })
                #expect(chain.source == .keys(work))
                #expect(chain.region == "eu-north-1" && chain.endpoint == "http://store:9000")
            }
            let all = files.merging(keys) { $1 }.merging(["AWS_DEFAULT_REGION": "r", "AWS_ENDPOINT_URL": "http://e"]) {
                $1
            }
            let own = try CredentialChain(profile: nil, environment: all)
            #expect(own.source == .keys(.init(accessKey: "ENV", secretKey: "s", sessionToken: "t")))
            #expect(own.region == "r" && own.endpoint == "http://e")
            let missing = #expect(throws: LocationError.self) {
                try CredentialChain(profile: "none", environment: files)
            }
            #expect(missing?.description.contains("none") == true)
        }
        #expect(try CredentialChain(profile: nil, environment: Self.nowhere).source == nil)
    }

    @Test func `secrets that everyone may read are refused`() throws {
        try Self.withFiles(mode: 0o644) { files in
            let error = #expect(throws: LocationError.self) { try CredentialChain(profile: nil, environment: files) }
            #expect(error?.description.contains("chmod 600") == true && error?.description.contains("first") == false)
            let settings = files.merging(["AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"]) { $1 }
            let chain = try CredentialChain(profile: nil, environment: settings)
            #expect(chain.region == "eu-west-1")
        }
        try Self.withFiles(mode: 0o644, config: Self.credentials) { files in
            let settings = files.merging(["AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"]) { $1 }
            #expect(throws: LocationError.self) { try CredentialChain(profile: nil, environment: settings) }
        }
    }

    /// What a chain comes to whose settings are these, with a profile `keys` beside them.
    private static func source(
        _ config: String, profile: String? = "asked", _ environment: [String: String] = [:]
    ) throws -> CredentialSource? {
        let text = "[profile keys]\naws_access_key_id=K\naws_secret_access_key=s\n" + config
        var source: CredentialSource?
        try withFiles(config: text) { files in
            let all = nowhere.merging(files) { $1 }.merging(["AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"]) { $1 }
            source = try CredentialChain(profile: profile, environment: all.merging(environment) { $1 }).source
        }
        return source
    }

    private static func role(_ arn: String, _ session: String = "passhsm", region: String? = nil) -> AssumedRole {
        AssumedRole(
            arn: arn, session: session, service: AssumedRole.service(region: region), region: region ?? "us-east-1")
    }

    @Test func `a role is taken on by its source's keys, or by another role`() throws {
        let keys = CredentialSource.keys(.init(accessKey: "K", secretKey: "s"))
        let plain = "[profile asked]\nrole_arn = A\nsource_profile = keys\n"
        #expect(try Self.source(plain) == .role(Self.role("A"), of: keys))
        var full = Self.role("A", "me", region: "cn-north-1")
        (full.externalID, full.duration) = ("x", 900)
        let settings = "role_session_name = me\nexternal_id = x\nduration_seconds = 900\nregion = cn-north-1\n"
        #expect(try Self.source(plain + settings) == .role(full, of: keys))
        #expect(full.service == "https://sts.cn-north-1.amazonaws.com.cn")
        let chained = "[profile asked]\nrole_arn = B\nsource_profile = other\n[profile other]\nrole_arn = A\n"
        #expect(
            try Self.source(chained + "source_profile = keys\n")
                == .role(Self.role("B"), of: .role(Self.role("A"), of: keys)))
        let own =
            "[profile asked]\nrole_arn = A\nsource_profile = asked\naws_access_key_id=K\naws_secret_access_key=s\n"
        #expect(try Self.source(own) == .role(Self.role("A"), of: keys))
        let sources: [(String, CredentialSource)] = [
            ("Environment", .keys(.init(accessKey: "E", secretKey: "e"))),
            ("EcsContainer", .container(url: "http://169.254.170.2/c", .nothing)),
            ("Ec2InstanceMetadata", .instance(service: "http://169.254.169.254")),
        ]
        let environment = [
            "AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/c",
            "AWS_EC2_METADATA_DISABLED": "false",
        ]
        for (name, source) in sources {
            let config = "[profile asked]\nrole_arn = A\ncredential_source = \(name)\n"
            #expect(try Self.source(config, environment) == .role(Self.role("A"), of: source))
        }
    }

    @Test(arguments: [
        ("role_arn = A", "source_profile"), ("role_arn = A\nsource_profile = none", "none"),
        ("role_arn = A\nsource_profile = asked", "its own role"),
        ("role_arn = A\nsource_profile = other\n[profile other]\nrole_arn = B\nsource_profile = asked", "its own role"),
        ("role_arn = A\nsource_profile = keys\nmfa_serial = M", "mfa_serial"),
        ("role_arn = A\ncredential_source = Environment", "no credentials for the role"),
        ("sso_session = S", "export-credentials"), ("sso_start_url = S", "export-credentials"),
    ])
    func `profiles that cannot be used are refused, and say why`(_ config: String, _ cause: String) throws {
        let error = #expect(throws: LocationError.self) { try Self.source("[profile asked]\n\(config)\n") }
        #expect(error?.description.contains(cause) == true)
    }

    @Test func `web identities come from the environment or the profile, and services of the host last`() throws {
        let identity = ["AWS_ROLE_ARN": "R", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_REGION": "r"]
        let expected = CredentialSource.webIdentity(Self.role("R", region: "r"), tokenFile: "/token")
        let container = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/c", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"]
        let all = identity.merging(container) { $1 }
        #expect(
            try Self.source("[default]\naws_access_key_id=K\naws_secret_access_key=s\n", profile: nil, all) == expected)
        let keys = ["AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e"]
        #expect(
            try Self.source("", profile: nil, all.merging(keys) { $1 }) == .keys(.init(accessKey: "E", secretKey: "e")))
        let profile = "[profile asked]\nrole_arn = R\nweb_identity_token_file = /token\nregion = r\n"
        #expect(try Self.source(profile) == expected)
        #expect(
            try Self.source("", profile: nil, container) == .container(url: "http://169.254.170.2/c", .token("t")))
        let empty = "[profile asked]\nregion = r\n"
        #expect(try Self.source(empty, container) == .container(url: "http://169.254.170.2/c", .token("t")))
        let instance = ["AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://h:1/", "AWS_EC2_METADATA_DISABLED": "false"]
        #expect(try Self.source("", profile: nil, instance) == .instance(service: "http://h:1"))
        #expect(
            try Self.source("", profile: nil, instance.merging(["AWS_EC2_METADATA_DISABLED": "TRUE"]) { $1 }) == nil)
    }

    @Test func `a container's token is shown to this machine's host alone, or by https`() throws {
        let name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        let token = ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/t"]
        for url in [
            "http://127.0.0.1:80/x", "http://localhost/x", "http://[::1]:1/", "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials", "https://elsewhere.example/x",
        ] {
            let source = try Self.source("", profile: nil, token.merging([name: url]) { $1 })
            #expect(source == .container(url: url, .file("/t")))
        }
        for url in [
            "http://elsewhere.example/x", "http://10.0.0.1/", "ftp://127.0.0.1/", "x", "http://127.0.0.1.example.org/",
        ] {
            #expect(throws: LocationError.self) { try Self.source("", profile: nil, [name: url]) }
        }
    }
}
