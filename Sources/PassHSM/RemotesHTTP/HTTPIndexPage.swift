import FoundationEssentials
import HSMCore
import HSMRemotes
import HSMSystem

/// What a server's page about a directory lists: nginx's `autoindex_format json`, or a page of links as nginx, Apache,
/// lighttpd, Caddy, rclone and Python's http.server write it.
package struct HTTPIndexPage: Equatable, Sendable {
    package struct Name: Hashable, Sendable {
        package let bytes: [UInt8]
        package let isDirectory: Bool
    }

    /// In the page's order, each once.
    package private(set) var names: [Name] = []

    /// - Throws: `.remoteFailed` when the page is none of these.
    package init(json bytes: [UInt8], of url: String) throws(FillError) {
        struct Entry: Decodable {
            let name: String
            let type: String
        }
        let entries: [Entry]
        do { entries = try JSONDecoder().decode([Entry].self, from: Data(bytes)) } catch {
            throw FillError(.io, .remoteFailed, "\(url) is no list of names as nginx's autoindex_format json has it")
        }
        for entry in entries { add(Array(entry.name.utf8), isDirectory: entry.type == "directory") }
    }

    /// - Parameter address: of the page: links to anything but names in its directory are passed over.
    /// - Throws: `.remoteFailed` for a page that does not say that it is an index: any other page has links too.
    package init(html bytes: [UInt8], of address: WebAddress) throws(FillError) {
        guard Self.isIndex(String(decoding: bytes, as: UTF8.self).lowercased(), of: address) else {
            throw FillError(.io, .remoteFailed, "\(address.url) is no index page: it does not say that it is one")
        }
        for link in Self.links(bytes) {
            guard let path = Self.path(link, of: address) else { continue }
            let isDirectory = path.last == 0x2f
            add(isDirectory ? path.dropLast() : path, isDirectory: isDirectory)
        }
    }

    /// - Parameter page: in lower case.
    private static func isIndex(_ page: String, of address: WebAddress) -> Bool {
        guard let start = page.firstRange(of: "<title>"), let end = page[start.upperBound...].firstRange(of: "</title>")
        else { return false }
        let title = page[start.upperBound..<end.lowerBound]
        if title.contains("index of") || title.contains("directory listing") { return true }
        // Caddy's and rclone's pages have the directory's name, or its path, for a title.
        guard page.contains("class=\"listing") || page.contains("class='listing") else { return false }
        let text = String(decoding: withoutEscapes(Array(title.utf8)[...]), as: UTF8.self)
        let name = text.trimmed.split(separator: "/").joined(separator: "/")
        // Caddy decodes it once too often.
        return [address.path, PercentEncoding.decode(address.path) ?? []].contains { path in
            let path = String(decoding: path, as: UTF8.self).lowercased()
            return name.isEmpty ? text.contains("/") : path.hasSuffix("/\(name)/")
        }
    }

    private mutating func add(_ name: [UInt8], isDirectory: Bool) {
        let isName =
            !name.isEmpty && name != [0x2e] && name != [0x2e, 0x2e] && !name.contains(0x2f) && !name.contains(0)
        if isName, seen.insert(name).inserted { names.append(Name(bytes: name, isDirectory: isDirectory)) }
    }

    private var seen: Set<[UInt8]> = []

    /// The values of the `href`s of `<a>` elements, without HTML's escapes.
    private static func links(_ page: [UInt8]) -> [[UInt8]] {
        var result: [[UInt8]] = []
        var rest = page[...]
        while let tag = rest.firstIndex(of: 0x3c) {
            rest = rest[(tag + 1)...]
            guard let first = rest.first, first | 0x20 == 0x61, rest.dropFirst().first.map({ $0 <= 0x20 }) == true,
                let end = rest.firstIndex(of: 0x3e)
            else { continue }
            // Lower case for comparison only: the value keeps its own.
            let inside = rest[..<end]
            let lower = inside.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
            guard let name = lower.firstRange(of: Array("href=".utf8)) else { continue }
            var value = inside.dropFirst(name.upperBound)
            let quote = value.first
            if quote == 0x22 || quote == 0x27 {
                // A quoted value may have a > in it.
                value = rest[(value.startIndex + 1)...].prefix { $0 != quote }
            } else {
                value = value.prefix { $0 > 0x20 }
            }
            result.append(withoutEscapes(value))
            rest = rest[value.endIndex...]
        }
        return result
    }

    private static let escapes: [(text: [UInt8], byte: UInt8)] = [
        ("&amp;", 0x26), ("&lt;", 0x3c), ("&gt;", 0x3e), ("&quot;", 0x22), ("&#39;", 0x27), ("&#34;", 0x22),
        ("&#x27;", 0x27), ("&apos;", 0x27),
    ].map { (Array($0.0.utf8), $0.1) }

    private static func withoutEscapes(_ text: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        var rest = text
        while let byte = rest.first {
            if byte == 0x26, let escape = escapes.first(where: { rest.starts(with: $0.text) }) {
                result.append(escape.byte)
                rest = rest.dropFirst(escape.text.count)
            } else {
                result.append(byte)
                rest = rest.dropFirst()
            }
        }
        return result
    }

    /// The decoded path of a link below the directory; nil for links elsewhere, and for those that sort the page.
    private static func path(_ link: [UInt8], of address: WebAddress) -> [UInt8]? {
        var link = link[...]
        if link.contains(0x3f) || link.contains(0x23) { return nil }
        if link.starts(with: address.origin.utf8) { link = link.dropFirst(address.origin.utf8.count) }
        let isHere = link.starts(with: "./".utf8)
        if isHere { link = link.dropFirst(2) }
        guard let decoded = PercentEncoding.decode(link) else { return nil }
        if decoded.first == 0x2f {
            return decoded.starts(with: address.path) ? Array(decoded.dropFirst(address.path.count)) : nil
        }
        // `mailto:` and `https:` are other places; a name with a colon in it is written with %3A, or behind `./`.
        if isHere { return decoded }
        let scheme = link.prefix { $0 != 0x3a && $0 != 0x2f && $0 != 0x25 }
        let isScheme = scheme.endIndex < link.endIndex && link[scheme.endIndex] == 0x3a && link.starts(with: scheme)
        return isScheme && Self.schemes.contains(String(decoding: scheme, as: UTF8.self).lowercased()) ? nil : decoded
    }

    private static let schemes: Set = ["http", "https", "mailto", "javascript", "data", "ftp"]
}
