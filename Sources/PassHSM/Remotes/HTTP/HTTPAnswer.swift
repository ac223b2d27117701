import HSMCore
import NIOHTTP1

/// The part of an answer's body that is the range, once the head has proved that the body belongs to the recorded
/// version.
///
/// A server may ignore the conditions of a request; this check is what makes sure. No byte of a body is used before it.
package struct HTTPAnswer: Equatable, Sendable {
    /// How many bytes of the body come before the range: none, unless the server does not support ranges.
    package let skipped: Int
    /// Whether the body is the range alone, and not the whole object.
    package let isPart: Bool
    /// Whether the body ends with the range.
    package let endsWithRange: Bool

    /// Checks the head of an answer.
    ///
    /// - Parameters:
    ///   - range: the range that was asked for; not empty.
    ///   - object: the object with its recorded version.
    ///   - keepsCodings: the server stores objects in a coding such as gzip, and names the coding without undoing it,
    ///     as S3 does.
    /// - Throws: `.remoteChanged`, `.remoteGone` or `.remoteFailed`, unless the body holds the range of the recorded
    ///   version.
    package init(
        status: HTTPResponseStatus, headers: HTTPHeaders, range: Range<Int>, of object: RemoteObject,
        keepsCodings: Bool = false
    ) throws(FillError) {
        guard status == .partialContent || status == .ok else {
            throw FillError(status: status, headers, object.key, isConditional: true)
        }
        try Self.expectPlain(headers, keepsCodings: keepsCodings, object.key)
        let total: Int?
        // rclone answers 200 with a part; only the length tells that it is one.
        let namesPart = headers.contains(name: "Content-Range")
        if namesPart && status == .ok && headers.first(name: "Content-Length") != "\(range.count)" {
            throw FillError.remoteFailed("\(object.key): the server does not say whether it sends all of it")
        }
        isPart = status == .partialContent || namesPart
        if isPart {
            total = try Self.total(headers, range, object.key)
            skipped = 0
            endsWithRange = true
        } else {
            total = headers.first(name: "Content-Length").flatMap { Int(digits: $0) }
            skipped = range.lowerBound
            endsWithRange = range.upperBound == object.size
        }
        try Self.expectVersion(headers, total: total, of: object)
    }

    /// Refuses a body in a coding (gzip) or in several parts: it is not the object's bytes.
    private static func expectPlain(
        _ headers: HTTPHeaders, keepsCodings: Bool, _ key: RemoteKey
    ) throws(FillError) {
        for coding in headers[canonicalForm: "Content-Encoding"]
        where coding.lowercased() != "identity" && !keepsCodings {
            throw FillError.remoteFailed("\(key): the server answers with \(coding), although it was not asked to")
        }
        if headers.first(name: "Content-Type")?.lowercased().hasPrefix("multipart/byteranges") == true {
            throw FillError.remoteFailed("\(key): the server answers one range with several parts")
        }
    }

    /// The object's size according to an answer with the range; nil where the answer does not tell it.
    private static func total(
        _ headers: HTTPHeaders, _ range: Range<Int>, _ key: RemoteKey
    ) throws(FillError) -> Int? {
        let text = headers.first(name: "Content-Range") ?? "nothing"
        guard let content = ContentRange(text), let bytes = content.bytes, bytes == range else {
            throw FillError.remoteFailed("\(key): asked for bytes \(range), the server answers with \(text)")
        }
        if let length = headers.first(name: "Content-Length"), Int(digits: length) != range.count {
            throw FillError.remoteFailed("\(key): the server sends \(length) bytes instead of \(range.count)")
        }
        return content.total
    }

    private static func expectVersion(
        _ headers: HTTPHeaders, total: Int?, of object: RemoteObject
    ) throws(FillError) {
        guard let recorded = HTTPVersionTag(object.version) else {
            throw FillError.remoteChanged("\(object.key): \(object.version) is not a web server's version")
        }
        if let total, total != object.size {
            throw FillError.remoteChanged("\(object.key) has \(total) bytes, not \(object.size)")
        }
        switch recorded {
        case .entityTag(let tag):
            guard let found = headers.first(name: "ETag") else { throw versionless(object) }
            if found != tag { throw changed(object, to: found) }
        case .modified(let seconds, _):
            guard let text = headers.first(name: "Last-Modified"), let found = HTTPDate.seconds(text), total != nil
            else { throw versionless(object) }
            if found != seconds { throw changed(object, to: text) }
        }
    }

    private static func changed(_ object: RemoteObject, to version: String) -> FillError {
        FillError.remoteChanged("\(object.key) has version \(version), not \(object.version)")
    }

    /// The answer is the page of another server, or lacks a header that it must have (RFC 9110, section 15.3.7).
    private static func versionless(_ object: RemoteObject) -> FillError {
        FillError.remoteFailed("\(object.key): the answer does not say which version it is of")
    }
}

/// `Content-Range` (RFC 9110, section 14.4): `bytes 0-9/100`, `bytes 0-9/*` or `bytes */100`.
package struct ContentRange: Equatable, Sendable {
    /// Nil when the requested range lies beyond the end.
    package let bytes: Range<Int>?
    package let total: Int?

    /// Parses the header; nil for anything else.
    package init?(_ text: String) {
        guard text.lowercased().hasPrefix("bytes ") else { return nil }
        let parts = text.dropFirst(6).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        total = Int(digits: parts[1])
        guard total != nil || parts[1] == "*" else { return nil }
        if parts[0] == "*" {
            bytes = nil
            return
        }
        let ends = parts[0].split(separator: "-", omittingEmptySubsequences: false).map { Int(digits: $0) }
        guard ends.count == 2, let first = ends[0], let last = ends[1], last >= first,
            last < total ?? Int.max
        else { return nil }
        bytes = first..<last + 1
    }
}
