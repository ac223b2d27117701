import ArgumentParser
import HSMRemotes

/// The options for reaching a bucket. An import records them in its location, so that mounts need none of them.
struct StoreOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Where the store is, unless it is AWS.", valueName: "url"))
    var endpoint: String?

    @Option(help: "The bucket's region.")
    var region: String?

    @Option(help: "Whose credentials of ~/.aws are used.")
    var profile: String?

    @Option(help: "How the bucket is named in requests: path or virtual (as a host).")
    var style: BucketAddress.Style?

    @Flag(inversion: .prefixedNo, help: "Ask for each object's metadata: its modification time, mode, owner, checksum.")
    var metadata = true

    /// - Throws: `LocationError` when options are given for a location that is no bucket, or `--endpoint` is no URL of
    ///   an endpoint.
    func applied(to location: RemoteLocation) throws(LocationError) -> RemoteLocation {
        guard var bucket = location.bucket else {
            if endpoint != nil || region != nil || profile != nil || style != nil {
                throw LocationError("--endpoint, --region, --profile and --style are for s3:// sources")
            }
            return location
        }
        if let endpoint {
            bucket.endpoint = try RemoteLocation(endpoint).web
            guard bucket.endpoint != nil else { throw LocationError("\(endpoint) is not the URL of an endpoint") }
        }
        bucket.region = region ?? bucket.region
        bucket.profile = profile ?? bucket.profile
        bucket.style = style ?? bucket.style
        return RemoteLocation(bucket)
    }
}

extension BucketAddress.Style: ExpressibleByArgument {}
