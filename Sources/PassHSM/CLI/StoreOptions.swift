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

    /// What is given, by the options' names.
    var given: [(name: String, value: String)] {
        [("endpoint", endpoint), ("region", region), ("profile", profile), ("style", style?.rawValue)]
            .compactMap { name, value in value.map { (name, $0) } }
    }
}

extension BucketAddress.Style: ExpressibleByArgument {}
