import HSMRemotes
import HSMRemotesHTTP
import HSMSystem

/// The shared files that AWS's tools write: credentials and settings of profiles. Source: "Shared config and credentials
/// files" in the AWS SDKs' reference.
struct ProfileFiles {
    private let secrets: String?
    private let settings: String?

    /// The files' contents; nil where there is none.
    init(secrets: String?, settings: String?) { (self.secrets, self.settings) = (secrets, settings) }

    /// - Throws: for a file with a secret that everyone may read.
    init(credentials: String, configuration: String) throws(LocationError) {
        secrets = try SecretFile.text(credentials)
        // Everyone may read the settings as long as there is no secret among them.
        let text = SmallFile.text(configuration)
        settings = text?.contains("aws_secret_access_key") == true ? try SecretFile.text(configuration) : text
    }

    /// What both files tell of a profile, the file of credentials first; nil when it is in neither.
    func profile(_ name: String) -> [String: String]? {
        let sections = [
            secrets.flatMap { Self.section(name, in: $0) },
            settings.flatMap { Self.section(name == "default" ? name : "profile \(name)", in: $0) },
        ].compactMap { $0 }
        guard let first = sections.first else { return nil }
        return sections.dropFirst().reduce(first) { $0.merging($1) { first, _ in first } }
    }

    /// The lines `name = value` below `[section]`; nil where there is no such section.
    private static func section(_ name: String, in text: String) -> [String: String]? {
        var result: [String: String]?
        var isInside = false
        for line in text.split(whereSeparator: \.isNewline) {
            let text = line.trimmed
            if text.hasPrefix("[") {
                let title = text.dropFirst().prefix { $0 != "]" }.split(whereSeparator: \.isWhitespace)
                isInside = title.joined(separator: " ") == name
                if isInside { result = result ?? [:] }
            } else if isInside, let equals = text.firstIndex(of: "="), !text.hasPrefix("#"), !text.hasPrefix(";"),
                // What is indented belongs to the setting above.
                line.first?.isWhitespace == false
            {
                result?[text[..<equals].trimmed.lowercased()] = text[text.index(after: equals)...].trimmed
            }
        }
        return result
    }
}
