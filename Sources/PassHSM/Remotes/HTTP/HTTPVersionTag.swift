import HSMCore
import NIOHTTP1

/// A web server's version of an object: a strong ETag, or else the time of its last change and its size.
///
/// As a ``RemoteVersion`` it is the ETag with its quotes, or `m`, seconds since 1970, `-` and the size in bytes.
package enum HTTPVersionTag: Hashable, Sendable {
    case entityTag(String)
    case modified(seconds: Int, size: Int)

    /// The version in the headers of an answer; nil where it has neither header. A weak ETag is ignored, because it
    /// says nothing about bytes (RFC 9110, section 8.8.1).
    ///
    /// - Parameter size: the size of the whole object in bytes.
    package init?(_ headers: HTTPHeaders, size: Int) {
        if let tag = headers.first(name: "ETag"), Self.isStrong(tag) {
            self = .entityTag(tag)
        } else if let seconds = headers.first(name: "Last-Modified").flatMap({ HTTPDate.seconds($0) }) {
            self = .modified(seconds: seconds, size: size)
        } else {
            return nil
        }
    }

    /// Parses a recorded version; nil when it is not a web server's.
    package init?(_ version: RemoteVersion) {
        let text = String(decoding: version.bytes, as: UTF8.self)
        if Self.isStrong(text) {
            self = .entityTag(text)
            return
        }
        let parts = text.dropFirst().split(separator: "-", omittingEmptySubsequences: false)
        guard text.first == "m", let size = parts.last.flatMap({ Int(digits: $0) }),
            let seconds = Int(parts.dropLast().joined(separator: "-")), HTTPDate.representable.contains(seconds)
        else { return nil }
        self = .modified(seconds: seconds, size: size)
    }

    /// The version as it is recorded.
    package var version: RemoteVersion {
        switch self {
        case .entityTag(let tag): RemoteVersion(Array(tag.utf8))
        case .modified(let seconds, let size): RemoteVersion(Array("m\(seconds)-\(size)".utf8))
        }
    }

    /// A record has room for 255 bytes of a version.
    private static func isStrong(_ tag: String) -> Bool {
        tag.utf8.count >= 2 && tag.utf8.count <= 255 && tag.first == "\"" && tag.last == "\""
    }

    /// Makes the server refuse the request (412) when the object has another version.
    package func addCondition(to headers: inout HTTPHeaders) {
        switch self {
        case .entityTag(let tag): headers.add(name: "If-Match", value: tag)
        case .modified(let seconds, _):
            headers.add(name: "If-Unmodified-Since", value: HTTPDate.text(seconds))
        }
    }
}
