import Foundation
import Glibc
import HSMRemotes
import Testing

@testable import HSMRemotesS3

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
            #expect(chain.credentials == .init(accessKey: "DEFAULT", secretKey: "first"))
            #expect(chain.region == "eu-west-1" && chain.endpoint == nil)
            let work = RequestSignature.Credentials(accessKey: "WORK", secretKey: "se=cret/+", sessionToken: "token")
            for (named, more) in [("work", keys), (nil, ["AWS_PROFILE": "work"])] {
                let chain = try CredentialChain(profile: named, environment: files.merging(more) { $1 })
                #expect(chain.credentials == work)
                #expect(chain.region == "eu-north-1" && chain.endpoint == "http://store:9000")
            }
            let all = files.merging(keys) { $1 }.merging(["AWS_DEFAULT_REGION": "r", "AWS_ENDPOINT_URL": "http://e"]) {
                $1
            }
            let own = try CredentialChain(profile: nil, environment: all)
            #expect(own.credentials == .init(accessKey: "ENV", secretKey: "s", sessionToken: "t"))
            #expect(own.region == "r" && own.endpoint == "http://e")
            let missing = #expect(throws: LocationError.self) {
                try CredentialChain(profile: "none", environment: files)
            }
            #expect(missing?.description.contains("none") == true)
        }
        #expect(try CredentialChain(profile: nil, environment: ["HOME": "/nonexistent"]).credentials == nil)
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
}
