import HSMCore
import HSMSystem

/// The top of a tree on a web server: an `http://` or `https://` URL without user, query and fragment.
package struct WebAddress: Hashable, Sendable {
    package let isEncrypted: Bool
    /// In lower case; an IPv6 address with its brackets.
    package internal(set) var host: String
    /// Nil for the scheme's default port.
    package let port: Int?
    /// The decoded path, with a slash at both ends.
    package internal(set) var path: [UInt8]
}

extension WebAddress {
    /// Parses the URL. Looks nothing up.
    ///
    /// - Throws: when the text is not such a URL. A URL with a user is refused, because lists of processes, the
    ///   configuration and `status` would show it.
    package init(_ argument: BytePath) throws(LocationError) {
        let bytes = argument.bytes
        guard let colon = bytes.firstIndex(of: 0x3a), bytes[colon...].starts(with: "://".utf8) else {
            throw LocationError("\(argument) is not a URL")
        }
        isEncrypted = String(decoding: bytes[..<colon], as: UTF8.self).lowercased() == "https"
        let rest = bytes[(colon + 3)...]
        let authority = rest.prefix { $0 != 0x2f && $0 != 0x3f && $0 != 0x23 }
        let encodedPath = rest.dropFirst(authority.count)
        if authority.contains(0x40) {
            let shown = String(decoding: rest.drop { $0 != 0x40 }.dropFirst(), as: UTF8.self)
            throw LocationError(
                "…@\(shown): everyone could see a user or password in a URL; put them into ~/.netrc, or set "
                    + "PASSHSM_HTTP_USER and PASSHSM_HTTP_PASSWORD")
        }
        if encodedPath.contains(0x3f) || encodedPath.contains(0x23) {
            throw LocationError("\(argument): a source's URL must not contain ? or #; write them as %3F and %23")
        }
        (host, port) = try Self.split(authority, of: argument)
        guard let decoded = PercentEncoding.decode(encodedPath), !decoded.contains(0),
            PercentEncoding.decode(encodedPath.split(separator: 0x2f).joined())?.contains(0x2f) == false
        else {
            throw LocationError(
                "\(argument): a % must be followed by two hexadecimal digits other than 00 and 2F; "
                    + "write a plain % as %25")
        }
        let names = decoded.split(separator: 0x2f).filter { $0 != [0x2e] }
        guard !names.contains([0x2e, 0x2e]) else {
            throw LocationError("\(argument): a source's URL must not contain ..")
        }
        path = names.flatMap { [0x2f] + $0 } + [0x2f]
    }

    private static func split(
        _ authority: ArraySlice<UInt8>, of argument: BytePath
    ) throws(LocationError) -> (host: String, port: Int?) {
        let text = String(decoding: authority, as: UTF8.self).lowercased()
        // An IPv6 address contains colons, in brackets.
        let end = text.lastIndex(of: "]").map { text.index(after: $0) } ?? text.firstIndex(of: ":") ?? text.endIndex
        let (host, behind) = (String(text[..<end]), text[end...])
        let isHost = host.utf8.allSatisfy { $0.isAlphanumeric(or: "-.:[]_") }
        guard isHost, !host.isEmpty else { throw LocationError("\(argument) has no valid host name") }
        if behind.isEmpty || behind == ":" { return (host, nil) }
        guard behind.first == ":", let port = Int(digits: behind.dropFirst()), (1...65_535).contains(port) else {
            throw LocationError("\(argument): \(behind.dropFirst()) is not a port")
        }
        return (host, port)
    }

    /// Host and port, as the `Host` header has them.
    package var authority: String { host + (port.map { ":\($0)" } ?? "") }

    /// Scheme, host and port, without a slash at the end.
    package var origin: String { (isEncrypted ? "https://" : "http://") + authority }

    package var url: String { origin + PercentEncoding.encode(path) }

    /// The URL of the object with this key.
    package func url(of key: some Sequence<UInt8>) -> String { url + PercentEncoding.encode(key) }
}
