import HSMCore

extension BucketAddress: RemoteAddress {
    package static let schemes = ["s3"]
    package static let options = ["endpoint", "region", "profile", "style"]

    /// Only bucket, prefix and endpoint count.
    package func isSamePlace(as recorded: any RemoteAddress, isComplete: Bool) -> Bool {
        guard let recorded = recorded as? BucketAddress else { return false }
        let isSameEndpoint = endpoint == recorded.endpoint || !isComplete && recorded.endpoint == nil
        return bucket == recorded.bucket && prefix == recorded.prefix && isSameEndpoint
    }

    package mutating func set(_ option: String, to value: String) throws(LocationError) {
        guard !value.isEmpty else { throw LocationError("--\(option) has no value") }
        switch option {
        case "endpoint": endpoint = try WebAddress(endpoint: value)
        case "region": region = value
        case "profile": profile = value
        case "style":
            style = Style(rawValue: value)
            guard style != nil else { throw LocationError("the style \(value) is unknown; use path or virtual") }
        default: throw RemoteKinds.refusal(of: option)
        }
    }

    /// Completes the address with the settings that an earlier import recorded for the same bucket and prefix. An
    /// endpoint in the environment takes precedence over the recorded one, so that a different endpoint is noticed.
    ///
    /// - Throws: for an endpoint in the environment or the profile that is not a URL; errors of ``CredentialChain``.
    package func completed(
        after recorded: (any RemoteAddress)?, environment: [String: String]
    ) throws(LocationError) -> BucketAddress {
        guard let recorded = recorded as? BucketAddress, recorded.bucket == bucket, recorded.prefix == prefix else {
            return try completed(by: CredentialChain(profile: profile, environment: environment))
        }
        var result = self
        result.profile = profile ?? recorded.profile
        result.region = region ?? recorded.region
        result.style = style ?? recorded.style
        result = try result.completed(by: CredentialChain(profile: result.profile, environment: environment))
        result.endpoint = result.endpoint ?? recorded.endpoint
        return result
    }

    /// Completes the address with the endpoint and the region that the environment or the profile names.
    func completed(by credentials: CredentialChain) throws(LocationError) -> BucketAddress {
        var result = self
        if endpoint == nil, let text = credentials.endpoint { result.endpoint = try WebAddress(endpoint: text) }
        result.region = region ?? credentials.region
        return result
    }

    package func open(_ access: RemoteAccess) throws(LocationError) -> any RemoteStore {
        try S3Source(
            self, transport: HTTPTransport(access),
            credentials: CredentialChain(profile: profile, environment: access.environment),
            readsMetadata: access.readsMetadata, isComplete: access.isComplete)
    }
}

extension WebAddress {
    /// Parses the URL of a service.
    init(endpoint text: String) throws(LocationError) {
        guard let address = try RemoteLocation(text).address as? WebAddress else {
            throw LocationError("\(text) is not the URL of an endpoint (http:// or https://)")
        }
        self = address
    }
}
