/// The kinds of remote tiers. A new one takes a folder, and a line here.
package enum RemoteKinds {
    static let all: [any RemoteAddress.Type] = [
        DirectoryAddress.self,
        WebAddress.self,
        BucketAddress.self,
    ]

    /// The texts that name a remote tier, for people.
    package static var forms: String { "a directory's path, or a \(list(schemes(of: all), "or")) URL" }

    /// Says which kinds an option is for.
    static func refusal(of option: String) -> LocationError {
        let kinds = all.filter { $0.options.contains(option) }
        let options = kinds.first?.options ?? [option]
        let sources = list(schemes(of: kinds), "and")
        return LocationError(
            "\(list(options.map { "--\($0)" }, "and")) \(options.count == 1 ? "is" : "are") for \(sources) sources")
    }

    private static func schemes(of kinds: [any RemoteAddress.Type]) -> [String] {
        kinds.flatMap { $0.schemes.map { "\($0)://" } }
    }

    private static func list(_ words: [String], _ conjunction: String) -> String {
        let last = words.suffix(2).joined(separator: " \(conjunction) ")
        return (words.dropLast(2) + [last]).joined(separator: ", ")
    }
}
