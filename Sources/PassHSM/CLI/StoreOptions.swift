import ArgumentParser
import HSMRemotes

/// The options for reaching a bucket. An import records them in its location, so that mounts need none of them.
struct StoreOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The store's URL (default: Amazon S3).", valueName: "url"))
    var endpoint: String?

    @Option(help: "The bucket's region.")
    var region: String?

    @Option(help: "The profile in ~/.aws that has the credentials.")
    var profile: String?

    @Option(help: "How requests name the bucket: path, or virtual (in the host name).")
    var style: BucketAddress.Style?

    @Flag(inversion: .prefixedNo, help: "Ask for each object's metadata: modification time, mode, owner and checksum.")
    var metadata = true

    /// What is given, by the options' names.
    var given: [(name: String, value: String)] {
        [("endpoint", endpoint), ("region", region), ("profile", profile), ("style", style?.rawValue)]
            .compactMap { name, value in value.map { (name, $0) } }
    }
}

extension BucketAddress.Style: ExpressibleByArgument {}
