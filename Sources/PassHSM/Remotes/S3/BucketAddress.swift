import HSMSystem

/// A bucket in an S3 store, or the part of it below a prefix: `s3://bucket/prefix`. The query tells how to reach it:
/// `?endpoint=URL&profile=NAME&region=NAME&style=path`.
package struct BucketAddress: Hashable, Sendable {
    /// How a request names the bucket.
    package enum Style: String, Sendable, CaseIterable {
        /// `https://endpoint/bucket/key`
        case path
        /// `https://bucket.endpoint/key`
        case virtual
    }

    package let bucket: String
    /// The prefix of every key: names, each followed by a slash.
    package let prefix: [UInt8]
    /// Nil for AWS's own endpoint in the region.
    package var endpoint: WebAddress?
    package var region: String?
    /// The profile in the shared credentials files.
    package var profile: String?
    /// Nil for the default: `path` with an own endpoint, and for names with dots, which no certificate covers;
    /// `virtual` otherwise.
    package var style: Style?

    /// Parses the URL. Looks nothing up.
    ///
    /// - Throws: when the text is not such a URL.
    package init(_ argument: BytePath) throws(LocationError) {
        var rest = argument.bytes.dropFirst("s3://".utf8.count)
        var query: ArraySlice<UInt8> = []
        if let mark = rest.firstIndex(of: 0x3f) { (rest, query) = (rest[..<mark], rest[(mark + 1)...]) }
        let name = rest.prefix { $0 != 0x2f }
        bucket = String(decoding: name, as: UTF8.self)
        let isName = name.allSatisfy { $0.isAlphanumeric(or: "-._") }
        guard isName, (3...255).contains(name.count) else {
            throw LocationError(
                "\(argument): a bucket's name has at least three characters, and only letters, digits, -, _ and .")
        }
        guard let path = PercentEncoding.decode(rest.dropFirst(name.count)), !path.contains(0),
            String(validating: path, as: UTF8.self) != nil
        else {
            throw LocationError("\(argument): a % must be followed by two hexadecimal digits; write a plain % as %25")
        }
        let names = path.split(separator: 0x2f)
        guard !names.contains([0x2e]), !names.contains([0x2e, 0x2e]) else {
            throw LocationError("\(argument): a prefix must not contain . or .. as a name")
        }
        prefix = names.flatMap { $0 + [0x2f] }
        for part in query.split(separator: 0x26) { try set(part, of: argument) }
    }

    private mutating func set(_ part: ArraySlice<UInt8>, of argument: BytePath) throws(LocationError) {
        let name = String(decoding: part.prefix { $0 != 0x3d }, as: UTF8.self)
        guard let value = PercentEncoding.decode(part.dropFirst(name.utf8.count + 1)), !value.isEmpty else {
            throw LocationError("\(argument): \(name) has no value")
        }
        guard let text = String(validating: value, as: UTF8.self) else {
            throw LocationError("\(argument): \(name) is not text in UTF-8")
        }
        guard Self.options.contains(name) else {
            throw LocationError("\(argument): \(name) is unknown; use endpoint, profile, region or style")
        }
        try set(name, to: text)
    }

    package var url: String {
        let options = [
            ("endpoint", endpoint?.url), ("profile", profile), ("region", region), ("style", style?.rawValue),
        ].compactMap { name, value in value.map { "\(name)=" + PercentEncoding.encode($0.utf8) } }
        let query = options.isEmpty ? "" : "?" + options.joined(separator: "&")
        return "s3://\(bucket)/" + PercentEncoding.encode(prefix) + query
    }

    /// The URL of the bucket, with a slash at the end; its objects are below.
    ///
    /// - Parameter region: the region where the address names none.
    package func base(region: String) -> WebAddress {
        let amazon = WebAddress(
            isEncrypted: true, host: "s3.\(self.region ?? region).amazonaws.com", port: nil, path: [0x2f])
        var base = endpoint ?? amazon
        let style = style ?? (endpoint == nil && !bucket.contains(".") ? .virtual : .path)
        switch style {
        case .path: base.path += Array(bucket.utf8) + [0x2f]
        case .virtual: base.host = "\(bucket).\(base.host)"
        }
        return base
    }
}
