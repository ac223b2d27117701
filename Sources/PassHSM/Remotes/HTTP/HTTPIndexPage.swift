import FoundationEssentials
import HSMCore
import HSMSystem

/// The names that a server's page about a directory lists. It understands nginx's `autoindex_format json`, and pages of
/// links as nginx, Apache, lighttpd, Caddy, rclone and Python's http.server write them.
package struct HTTPIndexPage: Equatable, Sendable {
    /// One name in the directory, decoded.
    package struct Name: Hashable, Sendable {
        package let bytes: [UInt8]
        package let isDirectory: Bool
    }

    /// The names in the page's order, each once.
    package private(set) var names: [Name] = []

    /// Reads nginx's JSON format.
    ///
    /// - Throws: `.remoteFailed` for anything else.
    package init(json bytes: [UInt8], of url: String) throws(FillError) {
        struct Entry: Decodable {
            let name: String
            let type: String
        }
        let entries: [Entry]
        do { entries = try JSONDecoder().decode([Entry].self, from: Data(bytes)) } catch {
            throw FillError.remoteFailed("\(url) is not a list of names in the format of nginx's autoindex_format json")
        }
        for entry in entries { add(Array(entry.name.utf8), isDirectory: entry.type == "directory") }
        seen = []
    }

    /// Reads a page of links.
    ///
    /// - Parameter address: the address of the page. Links to anything but names in this directory are skipped.
    /// - Throws: `.remoteFailed` for a page that does not say that it is an index, because other pages have links too.
    package init(html bytes: [UInt8], of address: WebAddress) throws(FillError) {
        var scan = HTMLScan(bytes)
        guard Self.isIndex(&scan, of: address) else {
            throw FillError.remoteFailed(
                "\(address.url) is not an index page of a directory; "
                    + "a manifest can list the files instead (--manifest)")
        }
        while let link = scan.nextLink() {
            guard let path = Self.path(Self.withoutEscapes(link), of: address) else { continue }
            let isDirectory = path.last == 0x2f
            add(isDirectory ? path.dropLast() : path, isDirectory: isDirectory)
        }
        seen = []
    }

    private static func isIndex(_ scan: inout HTMLScan, of address: WebAddress) -> Bool {
        guard let title = scan.title() else { return false }
        let name = String(decoding: title, as: UTF8.self).lowercased()
        if name.contains("index of") || name.contains("directory listing") { return true }
        // The title of Caddy's and rclone's pages is the directory's name or path.
        guard scan.contains("class=\"listing") || scan.contains("class='listing") else { return false }
        let text = String(decoding: withoutEscapes(Array(name.utf8)[...]), as: UTF8.self)
        let path = text.trimmed.split(separator: "/").joined(separator: "/")
        // Caddy decodes it once too often.
        return [address.path, PercentEncoding.decode(address.path) ?? []].contains { own in
            let own = String(decoding: own, as: UTF8.self).lowercased()
            return path.isEmpty ? text.contains("/") : own.hasSuffix("/\(path)/")
        }
    }

    /// About how many bytes of memory the names take.
    var cost: Int { names.reduce(0) { $0 + $1.bytes.count + Self.costOfName } }
    /// The bytes for the array of a name, and for its entries in the page.
    private static let costOfName = 96

    private mutating func add(_ name: [UInt8], isDirectory: Bool) {
        let isName =
            !name.isEmpty && name != [0x2e] && name != [0x2e, 0x2e] && !name.contains(0x2f) && !name.contains(0)
        if isName, seen.insert(name).inserted { names.append(Name(bytes: name, isDirectory: isDirectory)) }
    }

    /// The names so far; used only while the page is read.
    private var seen: Set<[UInt8]> = []

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

    /// The decoded path of a link below the directory. Nil for links to other places, and for links that sort the page.
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
        // A link with a scheme, such as `mailto:`, leads elsewhere. A name that contains a colon is written with %3A or
        // after `./`.
        if isHere { return decoded }
        let scheme = link.prefix { $0 != 0x3a && $0 != 0x2f && $0 != 0x25 }
        let isScheme = scheme.endIndex < link.endIndex && link[scheme.endIndex] == 0x3a && link.starts(with: scheme)
        return isScheme && Self.schemes.contains(String(decoding: scheme, as: UTF8.self).lowercased()) ? nil : decoded
    }

    private static let schemes: Set = ["http", "https", "mailto", "javascript", "data", "ftp"]
}
