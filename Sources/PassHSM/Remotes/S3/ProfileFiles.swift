import HSMSystem

/// The shared files of AWS's tools, with the credentials and settings of profiles. Source: "Shared config and
/// credentials files" in the AWS SDKs' reference.
struct ProfileFiles {
    private let secrets: String?
    private let settings: String?

    /// Takes the contents of the files; nil where there is no file.
    init(secrets: String?, settings: String?) { (self.secrets, self.settings) = (secrets, settings) }

    /// Reads both files. A missing file counts as empty.
    ///
    /// - Throws: for a file with a secret that everyone may read.
    init(credentials: String, configuration: String) throws(LocationError) {
        secrets = try SecretFile.text(credentials)
        // Everyone may read the settings, as long as they contain no secret.
        let text = SmallFile.text(configuration)
        settings = text?.contains("aws_secret_access_key") == true ? try SecretFile.text(configuration) : text
    }

    /// The settings of a profile in both files; those in the credentials file take precedence. Nil when it is in
    /// neither.
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
                // An indented line belongs to the setting above it.
                line.first?.isWhitespace == false
            {
                result?[text[..<equals].trimmed.lowercased()] = text[text.index(after: equals)...].trimmed
            }
        }
        return result
    }
}
