/// Where credentials come from.
enum CredentialSource: Hashable, Sendable {
    case keys(RequestSignature.Credentials)
    /// A program that the profile names, run with the shell.
    case process(String)
    /// A role that is assumed with other credentials.
    indirect case role(AssumedRole, of: CredentialSource)
    /// A role that is assumed with the token of an identity provider, which is in this file.
    case webIdentity(AssumedRole, tokenFile: String)
    /// The credential service of a container's host.
    case container(url: String, Authorization)
    /// The metadata service of an EC2 instance; its URL without a slash at the end.
    case instance(service: String)

    /// The authorization that a container's service asks for.
    enum Authorization: Hashable, Sendable {
        case nothing
        case token(String)
        /// The token in this file expires, so the file is read for each request.
        case file(String)
    }
}

/// A role, and the token service that issues its credentials. Source: AssumeRole and AssumeRoleWithWebIdentity in the
/// STS API reference.
struct AssumedRole: Hashable, Sendable {
    var arn: String
    var session: String
    var externalID: String?
    /// Seconds; nil for the service's own choice.
    var duration: Int?
    /// The URL of the token service, http or https.
    var service: String
    /// The region that requests to the token service are signed for.
    var region: String

    static let defaultSession = "passhsm"

    /// The token service of a region, or the global one, by HTTPS.
    static func service(region: String?) -> String {
        guard let region else { return "https://sts.amazonaws.com" }
        return "https://sts.\(region).amazonaws.com" + (region.hasPrefix("cn-") ? ".cn" : "")
    }
}
