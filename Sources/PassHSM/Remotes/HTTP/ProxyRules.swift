import HSMSystem

/// Decides which requests go through a proxy, by the environment variables that curl(1) uses.
///
/// `https_proxy` and `HTTPS_PROXY` are for encrypted requests; `http_proxy`, in lower case only, is for others;
/// `all_proxy` and `ALL_PROXY` are for both. `no_proxy` and `NO_PROXY` list hosts that are reached directly: names,
/// which include everything below them, or `*`. A proxy is used by CONNECT.
package struct ProxyRules: Sendable {
    package struct Proxy: Hashable, Sendable {
        package let host: String
        package let port: Int
        /// `user:password`, decoded.
        package let credentials: String?
    }

    private let plain: Proxy?
    private let encrypted: Proxy?
    private let exceptions: [String]

    /// Reads the environment.
    ///
    /// - Throws: for a proxy that is not `http://host:port`, with or without the scheme and `user:password@`.
    package init(environment: [String: String]) throws(LocationError) {
        func value(_ names: String...) -> String? { names.lazy.compactMap { environment[$0] }.first { !$0.isEmpty } }
        let all = value("all_proxy", "ALL_PROXY")
        plain = try (value("http_proxy") ?? all).map(Self.proxy)
        encrypted = try (value("https_proxy", "HTTPS_PROXY") ?? all).map(Self.proxy)
        exceptions = (value("no_proxy", "NO_PROXY") ?? "").split { $0 == "," || $0 == " " }.map { $0.lowercased() }
    }

    /// The proxy for requests to `host`; nil for a direct connection.
    package func proxy(for host: String, isEncrypted: Bool) -> Proxy? {
        guard let proxy = isEncrypted ? encrypted : plain else { return nil }
        let isException = exceptions.contains { name in
            let name = name.hasPrefix(".") ? String(name.dropFirst()) : name
            return name == "*" || host == name || host == "[\(name)]" || host.hasSuffix("." + name)
        }
        return isException ? nil : proxy
    }

    private static func proxy(_ text: String) throws(LocationError) -> Proxy {
        var rest = Substring(text)
        if let scheme = rest.range(of: "://") {
            guard rest[..<scheme.lowerBound].lowercased() == "http" else {
                throw LocationError("the proxy in the environment must be an http:// URL or host:port")
            }
            rest = rest[scheme.upperBound...]
        }
        var credentials: String?
        if let at = rest.lastIndex(of: "@") {
            guard let decoded = PercentEncoding.decode(Array(rest[..<at].utf8)) else {
                throw LocationError("the proxy's user and password in the environment are not percent-encoded")
            }
            credentials = String(decoding: decoded, as: UTF8.self)
            rest = rest[rest.index(after: at)...]
        }
        let address = try WebAddress(BytePath("http://\(rest)"))
        return Proxy(host: address.host.trimmingBrackets, port: address.port ?? 1080, credentials: credentials)
    }
}

extension String {
    /// The host without an IPv6 address's brackets, as getaddrinfo(3) takes it.
    fileprivate var trimmingBrackets: String { hasPrefix("[") ? String(dropFirst().dropLast()) : self }
}

extension Substring {
    fileprivate func range(of text: String) -> Range<Index>? {
        indices.first { self[$0...].hasPrefix(text) }.map { $0..<index($0, offsetBy: text.count) }
    }
}
