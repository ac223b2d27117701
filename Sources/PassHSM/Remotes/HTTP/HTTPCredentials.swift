import FoundationEssentials
import HSMSystem

/// The credentials for a web server: the value of the `Authorization` header. They come from the environment or from
/// files, and are never stored or printed.
///
/// The first of these counts: `PASSHSM_HTTP_BEARER`; the file that `PASSHSM_HTTP_BEARER_FILE` names;
/// `PASSHSM_HTTP_USER` with `PASSHSM_HTTP_PASSWORD`; the entry for the host, or the default entry, in the file that
/// `NETRC` names, or else in `~/.netrc`.
package struct HTTPCredentials: Sendable {
    /// Nil for requests without the header.
    package let authorization: String?

    package static let none = HTTPCredentials(authorization: nil)

    private init(authorization: String?) { self.authorization = authorization }

    /// Looks for the credentials of a host.
    ///
    /// - Throws: for a file that everyone may read, and for a named file that is missing.
    package init(host: String, environment: [String: String]) throws(LocationError) {
        func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        if let token = value("PASSHSM_HTTP_BEARER") {
            authorization = "Bearer \(token)"
        } else if let path = value("PASSHSM_HTTP_BEARER_FILE") {
            guard let text = try SecretFile.text(path) else { throw LocationError("\(path) does not exist") }
            authorization = "Bearer \(text.trimmed)"
        } else if let user = value("PASSHSM_HTTP_USER") {
            authorization = Self.basic(user, value("PASSHSM_HTTP_PASSWORD") ?? "")
        } else {
            let path = value("NETRC") ?? value("HOME").map { $0 + "/.netrc" }
            let entry = try path.flatMap { path throws(LocationError) in try SecretFile.text(path) }
                .flatMap { Self.netrcEntry(for: host, in: $0) }
            authorization = entry.map { Self.basic($0.login, $0.password) }
        }
    }

    private static func basic(_ user: String, _ password: String) -> String {
        "Basic " + Data("\(user):\(password)".utf8).base64EncodedString()
    }

    /// Finds an entry in the format of netrc(5): `machine NAME login NAME password TEXT`, in any order and over any
    /// number of lines, or `default`. Macros are skipped.
    static func netrcEntry(for host: String, in text: String) -> (login: String, password: String)? {
        var words: [Substring] = []
        var isMacro = false
        // Swift takes a carriage return with its newline for one character, which is not the newline.
        let isNewline = { (character: Character) in character == "\n" || character == "\r\n" }
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: isNewline) {
            // A macro ends with an empty line.
            if isMacro {
                isMacro = !line.isEmpty
                continue
            }
            let found = line.split { $0 == " " || $0 == "\t" || $0 == "\r" }
            if found.first?.hasPrefix("#") == true { continue }
            isMacro = found.first == "macdef"
            if !isMacro { words += found }
        }
        var entry: [String: String]?
        var index = 0
        while index < words.count {
            let (word, next) = (words[index], index + 1 < words.count ? String(words[index + 1]) : "")
            index += word == "default" ? 1 : 2
            switch word {
            case "machine", "default":
                if let entry { return (entry["login"] ?? "", entry["password"] ?? "") }
                entry = word == "default" || next.lowercased() == host ? [:] : nil
            default: entry?[String(word)] = next
            }
        }
        return entry.map { ($0["login"] ?? "", $0["password"] ?? "") }
    }
}
