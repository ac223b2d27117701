/// What credentials come from.
enum CredentialSource: Hashable, Sendable {
    case keys(RequestSignature.Credentials)
    /// A program of the profile, by the shell.
    case process(String)
    /// A role that somebody with other credentials takes on.
    indirect case role(AssumedRole, of: CredentialSource)
    /// A role that is taken on with the token of an identity provider, in this file.
    case webIdentity(AssumedRole, tokenFile: String)
    /// The service of a container's host.
    case container(url: String, Authorization)
    /// The metadata service of an EC2 instance; its URL without a slash at the end.
    case instance(service: String)

    /// What a container's service wants to be told.
    enum Authorization: Hashable, Sendable {
        case nothing
        case token(String)
        /// Read each time: the token in it ends.
        case file(String)
    }
}

/// A role, and where the token service that gives it is. Source: AssumeRole and AssumeRoleWithWebIdentity in the STS API
/// reference.
struct AssumedRole: Hashable, Sendable {
    var arn: String
    var session: String
    var externalID: String?
    /// Seconds; nil for the service's own choice.
    var duration: Int?
    /// Of the token service, http or https.
    var service: String
    /// That requests to the token service are signed for.
    var region: String

    static let defaultSession = "passhsm"

    /// The service of a region, or the global one; both are asked by HTTPS.
    static func service(region: String?) -> String {
        guard let region else { return "https://sts.amazonaws.com" }
        return "https://sts.\(region).amazonaws.com" + (region.hasPrefix("cn-") ? ".cn" : "")
    }
}
