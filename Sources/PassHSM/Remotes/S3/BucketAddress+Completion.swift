extension BucketAddress {
    /// Completes the address with the settings that an earlier import recorded for the same bucket and prefix. An
    /// endpoint in the environment takes precedence over the recorded one, so that a different endpoint is noticed.
    ///
    /// - Throws: for an endpoint in the environment or the profile that is not a URL; errors of ``CredentialChain``.
    package func completed(
        after recorded: BucketAddress?, environment: [String: String]
    ) throws(LocationError) -> BucketAddress {
        guard let recorded, recorded.bucket == bucket, recorded.prefix == prefix else {
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
        if endpoint == nil, let text = credentials.endpoint {
            result.endpoint = try RemoteLocation(text).web
            guard result.endpoint != nil else {
                throw LocationError("\(text) is not the URL of an endpoint (http:// or https://)")
            }
        }
        result.region = region ?? credentials.region
        return result
    }
}
