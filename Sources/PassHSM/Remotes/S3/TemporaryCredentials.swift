import FoundationEssentials

/// Credentials, and when they expire.
struct TemporaryCredentials: Sendable {
    let credentials: RequestSignature.Credentials
    /// When they expire; nil if they do not.
    let end: ContinuousClock.Instant?

    init(_ credentials: RequestSignature.Credentials) {
        self.credentials = credentials
        end = nil
    }

    private struct Answer: Decodable {
        let Version: Int?
        let Code: String?
        let AccessKeyId: String
        let SecretAccessKey: String
        let SessionToken: String?
        let Token: String?
        let Expiration: String?
    }

    /// Parses the output of a process or a metadata service; nil for anything else.
    ///
    /// - Parameter version: the value that its `Version` must have. Only processes print one.
    init?(json: [UInt8], version: Int? = nil) {
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(json)), answer.Version == version,
            answer.Code ?? "Success" == "Success"
        else { return nil }
        self.init(
            answer.AccessKeyId, answer.SecretAccessKey, token: answer.SessionToken ?? answer.Token,
            expiration: answer.Expiration)
    }

    /// Parses the token service's answer; nil for anything else.
    init?(xml: [UInt8]) {
        guard let elements = XMLElements(xml) else { return nil }
        func text(_ name: String) -> String? {
            elements.text("Result/Credentials/\(name)", isSuffix: true)
        }
        guard let key = text("AccessKeyId"), let secret = text("SecretAccessKey"), let token = text("SessionToken"),
            let expiration = text("Expiration")
        else { return nil }
        self.init(key, secret, token: token, expiration: expiration)
    }

    private init?(_ key: String, _ secret: String, token: String?, expiration: String?) {
        credentials = .init(accessKey: key, secretKey: secret, sessionToken: token)
        guard let expiration else {
            end = nil
            return
        }
        let formats: [Date.ISO8601FormatStyle] = [.iso8601, .init(includingFractionalSeconds: true)]
        guard let date = formats.lazy.compactMap({ try? Date(expiration, strategy: $0) }).first else { return nil }
        let rest = date.timeIntervalSinceNow
        // The process may print any year; a bounded one is as good as never, or long ago.
        end = .now + .seconds(min(max(rest, -1e12), 1e12))
    }
}
