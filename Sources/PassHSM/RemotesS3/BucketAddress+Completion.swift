import HSMRemotes

extension BucketAddress {
    /// The address with what an earlier import has recorded of the same bucket and prefix, where it says nothing itself; of
    /// the endpoint the environment is believed first, so that another one is noticed.
    ///
    /// - Throws: for an endpoint in the environment or the profile that is none, and what ``CredentialChain`` throws.
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

    /// The address with the endpoint and the region that the environment or the profile names, where it says nothing itself.
    func completed(by credentials: CredentialChain) throws(LocationError) -> BucketAddress {
        var result = self
        if endpoint == nil, let text = credentials.endpoint {
            result.endpoint = try RemoteLocation(text).web
            guard result.endpoint != nil else { throw LocationError("\(text) is not the URL of an endpoint") }
        }
        result.region = region ?? credentials.region
        return result
    }
}
