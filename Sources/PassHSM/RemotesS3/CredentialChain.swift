import HSMRemotes
import HSMRemotesHTTP
import HSMSystem

/// Who asks an S3 store, and in which region: the environment, and the shared files that AWS's tools write.
///
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` come first, unless a profile was named; then the
/// profile (`AWS_PROFILE`, or else `default`) in `~/.aws/credentials` (`AWS_SHARED_CREDENTIALS_FILE`) and `~/.aws/config`
/// (`AWS_CONFIG_FILE`): keys, or a `credential_process`. Source: "Settings reference" of the AWS SDKs and tools.
package struct CredentialChain: Sendable {
    /// Nil: requests are not signed, which public buckets allow.
    package let credentials: RequestSignature.Credentials?
    /// When the credentials end; nil where nothing tells.
    package let end: ContinuousClock.Instant?
    /// Nil where nothing names one.
    package let region: String?
    /// The endpoint that the environment or the profile names.
    package let endpoint: String?
    private let named: String?
    private let environment: [String: String]

    /// The same looked for again: files change, and a process is asked anew.
    package func again() throws(LocationError) -> CredentialChain {
        try CredentialChain(profile: named, environment: environment)
    }

    /// - Throws: for a file with a secret that everyone may read, and a profile that was named and is nowhere; and for a
    ///   process that gives no credentials.
    package init(profile named: String?, environment: [String: String]) throws(LocationError) {
        self.named = named
        self.environment = environment
        func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        let folder = (value("HOME") ?? "") + "/.aws/"
        let secrets = try SecretFile.text(value("AWS_SHARED_CREDENTIALS_FILE") ?? folder + "credentials")
        let settings = try Self.settings(value("AWS_CONFIG_FILE") ?? folder + "config")
        let name = named ?? value("AWS_PROFILE") ?? "default"
        let sections = [
            secrets.flatMap { Self.section(name, in: $0) },
            settings.flatMap { Self.section(name == "default" ? name : "profile \(name)", in: $0) },
        ]
        let profile = sections.compactMap { $0 }.reduce([:]) { $0.merging($1) { first, _ in first } }
        if sections.allSatisfy({ $0 == nil }), named != nil || value("AWS_PROFILE") != nil {
            throw LocationError("the profile \(name) is in none of the files of credentials")
        }
        if named == nil, let key = value("AWS_ACCESS_KEY_ID"), let secret = value("AWS_SECRET_ACCESS_KEY") {
            credentials = .init(accessKey: key, secretKey: secret, sessionToken: value("AWS_SESSION_TOKEN"))
            end = nil
        } else if let key = profile["aws_access_key_id"], let secret = profile["aws_secret_access_key"] {
            credentials = .init(accessKey: key, secretKey: secret, sessionToken: profile["aws_session_token"])
            end = nil
        } else if let command = profile["credential_process"] {
            let answer = try CredentialProcess(command)
            (credentials, end) = (answer.credentials, answer.end)
        } else {
            (credentials, end) = (nil, nil)
        }
        region = value("AWS_REGION") ?? value("AWS_DEFAULT_REGION") ?? profile["region"]
        endpoint = value("AWS_ENDPOINT_URL_S3") ?? value("AWS_ENDPOINT_URL") ?? profile["endpoint_url"]
    }

    /// The file of settings, which everyone may read as long as there is no secret in it.
    private static func settings(_ path: String) throws(LocationError) -> String? {
        let text = SmallFile.text(path)
        return text?.contains("aws_secret_access_key") == true ? try SecretFile.text(path) : text
    }

    /// The lines `name = value` below `[section]`; nil where there is no such section.
    static func section(_ name: String, in text: String) -> [String: String]? {
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
