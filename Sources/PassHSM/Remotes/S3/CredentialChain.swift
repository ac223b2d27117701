import FoundationEssentials
import HSMCore
import HSMSystem

/// Looks for the credentials and the region for an S3 store in the environment, in the shared files of AWS's tools, and
/// in the services of this machine. Source: "Settings reference" of the AWS SDKs and tools.
///
/// The first source that exists counts: keys in the environment; a role for a web identity in the environment; the
/// profile (`AWS_PROFILE`, or else `default`) in `~/.aws/credentials` (`AWS_SHARED_CREDENTIALS_FILE`) and
/// `~/.aws/config` (`AWS_CONFIG_FILE`); the credential service of a container; the metadata service of an EC2 instance.
/// A profile that was named explicitly comes before the environment. No service is asked for credentials here.
package struct CredentialChain: Sendable {
    /// Nil for requests without a signature, which public buckets accept.
    let source: CredentialSource?
    /// The region; nil where nothing names one.
    package let region: String?
    /// The endpoint that the environment or the profile names.
    package let endpoint: String?
    private let named: String?
    private let environment: [String: String]

    /// Looks again, since files change.
    func again() throws(LocationError) -> CredentialChain {
        try CredentialChain(profile: named, environment: environment)
    }

    /// Looks for the credentials of the profile `named`, or of the default sources when it is nil.
    ///
    /// - Throws: for a file with a secret that everyone may read; a named profile that does not exist; a profile that
    ///   needs something that is missing or not supported; a container's service at an address that is not allowed.
    package init(profile named: String?, environment: [String: String]) throws(LocationError) {
        self.named = named
        self.environment = environment
        let values = environment.filter { !$0.value.isEmpty }
        let folder = (values["HOME"] ?? "") + "/.aws/"
        let files = try ProfileFiles(
            credentials: values["AWS_SHARED_CREDENTIALS_FILE"] ?? folder + "credentials",
            configuration: values["AWS_CONFIG_FILE"] ?? folder + "config")
        let name = named ?? values["AWS_PROFILE"] ?? "default"
        let profile = files.profile(name)
        if profile == nil, named != nil || values["AWS_PROFILE"] != nil {
            throw LocationError("the profile \(name) is in none of the credentials files, such as ~/.aws/credentials")
        }
        region = values["AWS_REGION"] ?? values["AWS_DEFAULT_REGION"] ?? profile?["region"]
        endpoint = values["AWS_ENDPOINT_URL_S3"] ?? values["AWS_ENDPOINT_URL"] ?? profile?["endpoint_url"]
        let search = CredentialSearch(files: files, environment: values, region: region)
        if named == nil, let keys = search.environmentKeys {
            source = .keys(keys)
        } else if named == nil, values["AWS_PROFILE"] == nil, let identity = search.webIdentity {
            source = identity
        } else if let found = try search.source(ofProfile: name) {
            source = found
        } else {
            source = try search.container() ?? search.instance(isCertain: false)
        }
    }
}

/// The places where a chain looks.
private struct CredentialSearch {
    let files: ProfileFiles
    /// The environment without empty values.
    let environment: [String: String]
    let region: String?

    var environmentKeys: RequestSignature.Credentials? {
        guard let key = environment["AWS_ACCESS_KEY_ID"], let secret = environment["AWS_SECRET_ACCESS_KEY"] else {
            return nil
        }
        return .init(accessKey: key, secretKey: secret, sessionToken: environment["AWS_SESSION_TOKEN"])
    }

    var webIdentity: CredentialSource? {
        guard let arn = environment["AWS_ROLE_ARN"], let file = environment["AWS_WEB_IDENTITY_TOKEN_FILE"] else {
            return nil
        }
        return .webIdentity(role(arn, session: environment["AWS_ROLE_SESSION_NAME"]), tokenFile: file)
    }

    /// The credentials of a profile; nil when it has none.
    ///
    /// - Parameter asking: the profiles whose roles depend on this profile, the first one first.
    func source(ofProfile name: String, asking: [String] = []) throws(LocationError) -> CredentialSource? {
        guard let profile = files.profile(name) else {
            guard let last = asking.last else { return nil }
            throw LocationError(
                "the profile \(name), which the profile \(last) names as its source, "
                    + "is in none of the credentials files")
        }
        let keys = Self.keys(profile)
        // The keys of a source profile come before its role, even when a profile is its own source.
        if let keys, !asking.isEmpty || profile["role_arn"] == nil { return .keys(keys) }
        if let arn = profile["role_arn"] {
            guard !asking.contains(name) else {
                throw LocationError("the profile \(name) is the source of its own role, and has no keys")
            }
            return try source(ofRole: arn, name, profile, asking: asking + [name])
        }
        if let command = profile["credential_process"] { return .process(command) }
        if profile["sso_session"] ?? profile["sso_start_url"] != nil {
            throw LocationError(
                "the profile \(name) uses SSO, which only AWS's own tools support: add to it "
                    + "credential_process = aws configure export-credentials --profile \(name) --format process")
        }
        return nil
    }

    private func source(
        ofRole arn: String, _ name: String, _ profile: [String: String], asking: [String]
    ) throws(LocationError) -> CredentialSource {
        guard profile["mfa_serial"] == nil else {
            throw LocationError(
                "the profile \(name) needs a code from an MFA device (mfa_serial), which is not supported")
        }
        var role = role(arn, session: profile["role_session_name"])
        role.externalID = profile["external_id"]
        role.duration = profile["duration_seconds"].flatMap { Int(digits: $0) }
        if let file = profile["web_identity_token_file"] { return .webIdentity(role, tokenFile: file) }
        let source: CredentialSource?
        switch (profile["source_profile"], profile["credential_source"]) {
        case (let other?, _): source = try self.source(ofProfile: other, asking: asking)
        case (nil, "Environment"): source = environmentKeys.map { .keys($0) }
        case (nil, "EcsContainer"): source = try container()
        case (nil, "Ec2InstanceMetadata"): source = instance(isCertain: true)
        default: throw LocationError("the profile \(name) has a role, but neither source_profile nor credential_source")
        }
        guard let source else { throw LocationError("there are no credentials for the role of the profile \(name)") }
        return .role(role, of: source)
    }

    private static func keys(_ profile: [String: String]) -> RequestSignature.Credentials? {
        guard let key = profile["aws_access_key_id"], let secret = profile["aws_secret_access_key"] else { return nil }
        return .init(accessKey: key, secretKey: secret, sessionToken: profile["aws_session_token"])
    }

    private func role(_ arn: String, session: String?) -> AssumedRole {
        AssumedRole(
            arn: arn, session: session ?? AssumedRole.defaultSession,
            service: environment["AWS_ENDPOINT_URL_STS"] ?? AssumedRole.service(region: region),
            region: region ?? "us-east-1")
    }

    /// Source: "Container credential provider" in the AWS SDKs' reference.
    func container() throws(LocationError) -> CredentialSource? {
        let authorization: CredentialSource.Authorization =
            environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"].map { .file($0) }
            ?? environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"].map { .token($0) } ?? .nothing
        if let path = environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] {
            guard path.hasPrefix("/") else {
                throw LocationError("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash")
            }
            return .container(url: "http://169.254.170.2" + path, authorization)
        }
        guard let text = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] else { return nil }
        let url = URL(string: text)
        // The addresses of ECS and EKS. With http, a token that is sent to any other host could be read on the way.
        let hosts = ["localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"]
        let host = (url?.host ?? "").filter { $0 != "[" && $0 != "]" }
        let isLoopback = host.hasPrefix("127.") && host.allSatisfy { "0123456789.".contains($0) }
        guard url?.scheme == "https" || url?.scheme == "http" && (hosts.contains(host) || isLoopback) else {
            throw LocationError("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https:// nor on this machine's host")
        }
        return .container(url: text, authorization)
    }

    /// Source: "IMDS credential provider" in the AWS SDKs' reference.
    ///
    /// - Parameter isCertain: the profile says that this is an EC2 instance. Otherwise the firmware has to tell so,
    ///   because elsewhere a request to the service's address would only time out.
    func instance(isCertain: Bool) -> CredentialSource? {
        if environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" { return nil }
        if var service = environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] {
            while service.hasSuffix("/") { service.removeLast() }
            return .instance(service: service)
        }
        let firmware = ["sys_vendor", "bios_version"].map { SmallFile.text("/sys/class/dmi/id/\($0)")?.lowercased() }
        let isInstance = firmware[0] == "amazon ec2" || firmware[1]?.contains("amazon") == true
        return isCertain || isInstance ? .instance(service: "http://169.254.169.254") : nil
    }
}
