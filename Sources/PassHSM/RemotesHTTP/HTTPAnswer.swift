import HSMCore
import NIOHTTP1

/// What the head of an answer says about the body that follows, once it is known to be the recorded version's.
///
/// Conditions are only asked of a server; this is what makes sure. Nothing of a body is looked at before.
package struct HTTPAnswer: Equatable, Sendable {
    /// Bytes of the body that come before the range that was asked for: none, unless the server knows no ranges.
    package let skipped: Int
    /// The body is the range, and not the whole object.
    package let isPart: Bool
    /// The body ends with the range.
    package let endsWithRange: Bool

    /// - Parameters:
    ///   - range: what was asked for, not empty.
    ///   - object: whose recorded version was asked for.
    ///   - keepsCodings: the server stores objects in a coding, and names it, without undoing it, as S3 does.
    /// - Throws: `.remoteChanged`, `.remoteGone` or `.remoteFailed`, in every case but a body that holds the range of the
    ///   recorded version.
    package init(
        status: HTTPResponseStatus, headers: HTTPHeaders, range: Range<Int>, of object: RemoteObject,
        keepsCodings: Bool = false
    ) throws(FillError) {
        guard status == .partialContent || status == .ok else {
            throw FillError(status: status, headers, object.key, isConditional: true)
        }
        try Self.expectPlain(headers, keepsCodings: keepsCodings, object.key)
        let total: Int?
        // rclone answers 200 with a part; only its length says that it is one.
        let namesPart = headers.contains(name: "Content-Range")
        if namesPart && status == .ok && headers.first(name: "Content-Length") != "\(range.count)" {
            throw FillError(.io, .remoteFailed, "\(object.key): the server does not say whether it sends all of it")
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

    /// A body in a coding (gzip) or in parts is not the object's bytes.
    private static func expectPlain(
        _ headers: HTTPHeaders, keepsCodings: Bool, _ key: RemoteKey
    ) throws(FillError) {
        for coding in headers[canonicalForm: "Content-Encoding"]
        where coding.lowercased() != "identity" && !keepsCodings {
            throw FillError(
                .io, .remoteFailed, "\(key): the server answers with \(coding), although it was not asked to")
        }
        if headers.first(name: "Content-Type")?.lowercased().hasPrefix("multipart/byteranges") == true {
            throw FillError(.io, .remoteFailed, "\(key): the server answers one range with several parts")
        }
    }

    /// The object's size as an answer with the range gives it, nil where it does not.
    private static func total(
        _ headers: HTTPHeaders, _ range: Range<Int>, _ key: RemoteKey
    ) throws(FillError) -> Int? {
        let text = headers.first(name: "Content-Range") ?? "nothing"
        guard let content = ContentRange(text), let bytes = content.bytes, bytes == range else {
            throw FillError(.io, .remoteFailed, "\(key): asked for bytes \(range), the server answers with \(text)")
        }
        if let length = headers.first(name: "Content-Length"), Int(digits: length) != range.count {
            throw FillError(.io, .remoteFailed, "\(key): the server sends \(length) bytes instead of \(range.count)")
        }
        return content.total
    }

    private static func expectVersion(
        _ headers: HTTPHeaders, total: Int?, of object: RemoteObject
    ) throws(FillError) {
        guard let recorded = HTTPVersionTag(object.version) else {
            throw FillError(.io, .remoteChanged, "\(object.key): \(object.version) is not a web server's version")
        }
        if let total, total != object.size {
            throw FillError(.io, .remoteChanged, "\(object.key) has \(total) bytes, not \(object.size)")
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
        FillError(.io, .remoteChanged, "\(object.key) has version \(version), not \(object.version)")
    }

    /// Somebody else's page, or a server that leaves out what it must send (RFC 9110, section 15.3.7).
    private static func versionless(_ object: RemoteObject) -> FillError {
        FillError(.io, .remoteFailed, "\(object.key): the answer does not say which version it is of")
    }
}

/// `Content-Range` (RFC 9110, section 14.4): `bytes 0-9/100`, `bytes 0-9/*` or `bytes */100`.
package struct ContentRange: Equatable, Sendable {
    /// Nil when the range that was asked for is beyond the end.
    package let bytes: Range<Int>?
    package let total: Int?

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
