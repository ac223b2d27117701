import Crypto
import HSMSystem

/// AWS Signature Version 4 in the `Authorization` header, for requests without a body.
///
/// Sources: "AWS Signature Version 4 for API requests" in the IAM user guide; "Authenticating requests" in the S3 API
/// reference for the differences in S3, where the path is encoded once and not normalised.
package struct RequestSignature: Sendable {
    /// The keys that requests are signed with.
    package struct Credentials: Hashable, Sendable {
        package let accessKey: String
        package let secretKey: String
        /// The session token of temporary credentials; nil for permanent ones.
        package let sessionToken: String?

        package init(accessKey: String, secretKey: String, sessionToken: String? = nil) {
            self.accessKey = accessKey
            self.secretKey = secretKey
            self.sessionToken = sessionToken
        }
    }

    private let credentials: Credentials
    private let region: String
    private let service: String

    package init(_ credentials: Credentials, region: String, service: String = "s3") {
        self.credentials = credentials
        self.region = region
        self.service = service
    }

    /// The SHA-256 digest of an empty body, in hexadecimal.
    package static let emptyDigest = hexadecimal(SHA256.hash(data: [UInt8]()))

    /// The headers to add to a request, including `Authorization`.
    ///
    /// - Parameters:
    ///   - path: percent-encoded.
    ///   - query: names and values, not encoded, in any order.
    ///   - headers: further headers to sign; `host` has to be among them.
    ///   - time: seconds since 1970. Servers refuse a time that is off by more than 15 minutes.
    ///   - signsContentDigest: adds `x-amz-content-sha256`, which S3 requires.
    package func headers(
        method: String, path: String, query: [(String, String)], headers: [(String, String)], time: Int,
        signsContentDigest: Bool = true
    ) -> [(String, String)] {
        let stamp = Self.stamp(time)
        let day = String(stamp.prefix(8))
        var added = [("x-amz-date", stamp)]
        if signsContentDigest { added.append(("x-amz-content-sha256", Self.emptyDigest)) }
        if let token = credentials.sessionToken { added.append(("x-amz-security-token", token)) }
        let signed = (headers + added).map { ($0.0.lowercased(), $0.1.trimmed) }.sorted { $0.0 < $1.0 }
        let names = signed.map(\.0).joined(separator: ";")
        let request = [
            method, path, Self.canonical(query), signed.map { "\($0.0):\($0.1)\n" }.joined(), names, Self.emptyDigest,
        ].joined(separator: "\n")
        let scope = "\(day)/\(region)/\(service)/aws4_request"
        let text = [
            "AWS4-HMAC-SHA256", stamp, scope, Self.hexadecimal(SHA256.hash(data: Array(request.utf8))),
        ].joined(separator: "\n")
        let signature = Self.hexadecimal(Self.authenticate(text, with: signingKey(day: day)))
        let value = """
            AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope), SignedHeaders=\(names), Signature=\(signature)
            """
        return added + [("Authorization", value)]
    }

    /// The query as it is signed and sent: encoded, and sorted by encoded names and then values.
    package static func canonical(_ query: [(String, String)]) -> String {
        query.map { name, value in
            (
                PercentEncoding.encode(name.utf8, encodesSlash: true),
                PercentEncoding.encode(value.utf8, encodesSlash: true)
            )
        }
        .sorted { $0 < $1 }.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    private func signingKey(day: String) -> SymmetricKey {
        var key = SymmetricKey(data: Array("AWS4\(credentials.secretKey)".utf8))
        for part in [day, region, service, "aws4_request"] {
            key = SymmetricKey(data: Self.authenticate(part, with: key))
        }
        return key
    }

    private static func authenticate(_ text: String, with key: SymmetricKey) -> HMAC<SHA256>.MAC {
        HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key)
    }

    /// The time in the form `20130524T000000Z`.
    private static func stamp(_ time: Int) -> String {
        let day = Int((Double(time) / 86_400).rounded(.down))
        let (date, rest) = (HTTPDate.date(ofDay: day), time - day * 86_400)
        func padded(_ number: Int) -> String { (number < 10 ? "0" : "") + "\(number)" }
        return "\(date.year)\(padded(date.month))\(padded(date.day))T"
            + "\(padded(rest / 3600))\(padded(rest / 60 % 60))\(padded(rest % 60))Z"
    }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
