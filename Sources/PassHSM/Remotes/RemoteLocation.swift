import Glibc
import HSMCore
import HSMSystem

/// The location of a remote tier as the command line and the configuration give it: a plain path or a URL.
package struct RemoteLocation: Hashable, Sendable, CustomStringConvertible {
    private enum Place: Hashable, Sendable {
        case directory([UInt8])
        case web(WebAddress)
        case bucket(BucketAddress)
    }

    private let place: Place

    package init(_ bucket: BucketAddress) { place = .bucket(bucket) }

    /// Parses a location. It is one of these:
    /// - a plain path; a relative one starts at the current directory.
    /// - a `file://` URL, in which `%` and two hexadecimal digits stand for any byte but NUL.
    /// - an `http://`, `https://` or `s3://` URL (``BucketAddress``).
    ///
    /// A text that begins with the letters of a scheme and `://` is taken for a URL.
    ///
    /// - Throws: for an empty text, another scheme, another host, and a malformed URL. Nothing is looked up.
    package init(_ argument: BytePath) throws(LocationError) {
        guard let scheme = Self.scheme(of: argument.bytes) else {
            guard !argument.bytes.isEmpty else { throw LocationError("the source is empty: give a path or a URL") }
            place = .directory(Self.tidy(try Self.absolute(argument).bytes))
            return
        }
        switch scheme.lowercased() {
        case "file": place = .directory(Self.tidy(try Self.path(ofURL: argument)))
        case "http", "https": place = .web(try WebAddress(argument))
        case "s3": place = .bucket(try BucketAddress(argument))
        default:
            throw LocationError(
                "\(argument): \(scheme):// is not supported; a source is a directory's path, or a file://, http://, "
                    + "https:// or s3:// URL")
        }
    }

    /// The same for text, such as a URL from the configuration.
    package init(_ argument: String) throws(LocationError) { try self.init(BytePath(argument)) }

    /// The absolute path of a directory on this machine, without empty and `.` components; the kernel resolves `..` and
    /// symlinks. Nil for every other kind of location.
    package var path: [UInt8]? { if case .directory(let path) = place { path } else { nil } }

    /// The address of a web server's tree; nil for every other kind of location.
    package var web: WebAddress? { if case .web(let address) = place { address } else { nil } }

    /// The address of a bucket in an S3 store; nil for every other kind of location.
    package var bucket: BucketAddress? { if case .bucket(let address) = place { address } else { nil } }

    /// Whether both locations are the same place. For buckets, only bucket, prefix and endpoint count.
    ///
    /// - Parameter isComplete: false when `other` may lack its endpoint; it then matches any endpoint.
    package func isSamePlace(as other: RemoteLocation, isComplete: Bool) -> Bool {
        guard let bucket, let old = other.bucket else { return self == other }
        let isSameEndpoint = bucket.endpoint == old.endpoint || !isComplete && old.endpoint == nil
        return bucket.bucket == old.bucket && bucket.prefix == old.prefix && isSameEndpoint
    }

    /// The location as the configuration stores it: percent-encoded, without secrets. Equal places have equal URLs.
    package var url: String {
        switch place {
        case .directory(let path): "file://" + PercentEncoding.encode(path)
        case .web(let address): address.url
        case .bucket(let address): address.url
        }
    }

    package var description: String { url }

    /// Opens the directory of the location as a remote.
    ///
    /// - Throws: when there is no directory, or it cannot be opened.
    package func openDirectory() throws(LocationError) -> any RemoteStore {
        DirectorySource(path: try directory, location: url, identity: try sourceIdentity)
    }

    /// The directory of the location as a remote, even if it is away now.
    ///
    /// - Parameter identity: the file system that it has to be on; nil for any.
    /// - Throws: when the location is not a directory's.
    package func directory(on identity: SourceIdentity?) throws(LocationError) -> any RemoteStore {
        DirectorySource(path: try directory, location: url, identity: identity)
    }

    /// The file system that the directory is on now.
    ///
    /// - Throws: when there is no directory, or it cannot be opened.
    package var sourceIdentity: SourceIdentity {
        get throws(LocationError) {
            let path = try directory
            do throws(Errno) { return try SourceIdentity(of: try Descriptor.openTop(path)) } catch {
                let name = BytePath(path)
                switch error.rawValue {
                case ENOENT: throw LocationError("the source \(name) does not exist")
                case ENOTDIR: throw LocationError("the source \(name) is not a directory")
                default: throw LocationError("the source \(name) cannot be opened: \(error.text)")
                }
            }
        }
    }

    private var directory: [UInt8] {
        get throws(LocationError) {
            guard let path else { throw LocationError("\(url) is not a directory on this machine") }
            return path
        }
    }

    /// The text before `://`, if it can be a URL's scheme.
    private static func scheme(of bytes: [UInt8]) -> String? {
        guard let colon = bytes.firstIndex(of: 0x3a), colon > 0, bytes[colon...].starts(with: "://".utf8) else {
            return nil
        }
        let scheme = String(decoding: bytes[..<colon], as: UTF8.self)
        let isScheme = scheme.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2b, 0x2d, 0x2e: true
            default: false
            }
        }
        return isScheme ? scheme : nil
    }

    private static func path(ofURL argument: BytePath) throws(LocationError) -> [UInt8] {
        var rest = Array(argument.bytes.dropFirst("file://".utf8.count))
        if rest.starts(with: "localhost/".utf8) { rest.removeFirst(9) }
        guard rest.first == 0x2f else {
            throw LocationError("\(argument): a file:// URL is file:// and an absolute path, without a host")
        }
        if rest.contains(0x3f) || rest.contains(0x23) {
            throw LocationError("\(argument): write ? as %3F and # as %23 in a file:// URL")
        }
        guard let path = PercentEncoding.decode(rest), !path.contains(0) else {
            throw LocationError(
                "\(argument): a % must be followed by two hexadecimal digits other than 00; write a plain % as %25")
        }
        return path
    }

    private static func absolute(_ path: BytePath) throws(LocationError) -> BytePath {
        if path.isAbsolute { return path }
        do throws(Errno) {
            return BytePath(try BytePath.currentDirectory().bytes + [0x2f] + path.bytes)
        } catch {
            throw LocationError("the current directory has no path: \(error.text)")
        }
    }

    private static func tidy(_ path: [UInt8]) -> [UInt8] {
        let names = path.split(separator: 0x2f).filter { $0 != [0x2e] }
        return names.isEmpty ? [0x2f] : names.flatMap { [0x2f] + $0 }
    }
}
