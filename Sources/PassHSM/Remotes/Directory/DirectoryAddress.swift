import Glibc
import HSMCore
import HSMSystem

/// A directory of this machine: a plain path, or a `file://` URL, in which `%` and two hexadecimal digits stand for any
/// byte but NUL.
package struct DirectoryAddress: RemoteAddress {
    package static let schemes = ["file"]

    /// Absolute, without empty and `.` components; the kernel resolves `..` and symlinks.
    private let path: [UInt8]

    /// - Parameter path: a relative one starts at the current directory.
    init(path: BytePath) throws(LocationError) {
        guard !path.bytes.isEmpty else { throw LocationError("the source is empty: give a path or a URL") }
        self.path = Self.tidy(try Self.absolute(path))
    }

    package init(_ url: BytePath) throws(LocationError) {
        var rest = url.bytes.dropFirst("file://".utf8.count)
        if rest.starts(with: "localhost/".utf8) { rest = rest.dropFirst(9) }
        guard rest.first == 0x2f else {
            throw LocationError("\(url): a file:// URL is file:// and an absolute path, without a host")
        }
        if rest.contains(0x3f) || rest.contains(0x23) {
            throw LocationError("\(url): write ? as %3F and # as %23 in a file:// URL")
        }
        guard let path = PercentEncoding.decode(rest), !path.contains(0) else {
            throw LocationError(
                "\(url): a % must be followed by two hexadecimal digits other than 00; write a plain % as %25")
        }
        self.path = Self.tidy(path)
    }

    package var url: String { "file://" + PercentEncoding.encode(path) }
    package var directory: BytePath? { BytePath(path) }
    package var isForeign: Bool { false }

    package func fileSystem() throws(LocationError) -> SourceIdentity? {
        do throws(Errno) { return try SourceIdentity(of: try Descriptor.openTop(path)) } catch {
            let name = BytePath(path)
            switch error.rawValue {
            case ENOENT: throw LocationError("the source \(name) does not exist")
            case ENOTDIR: throw LocationError("the source \(name) is not a directory")
            default: throw LocationError("the source \(name) cannot be opened: \(error.text)")
            }
        }
    }

    package func open(_ access: RemoteAccess) throws(LocationError) -> any RemoteStore {
        let identity: SourceIdentity?
        if access.mayBeAway {
            identity = access.fileSystem.isEmpty ? nil : try SourceIdentity(text: access.fileSystem)
        } else {
            identity = try fileSystem()
        }
        return DirectorySource(path: path, location: url, identity: identity)
    }

    private static func absolute(_ path: BytePath) throws(LocationError) -> [UInt8] {
        if path.isAbsolute { return path.bytes }
        do throws(Errno) { return try BytePath.currentDirectory().bytes + [0x2f] + path.bytes } catch {
            throw LocationError("the current directory has no path: \(error.text)")
        }
    }

    private static func tidy(_ path: [UInt8]) -> [UInt8] {
        let names = path.split(separator: 0x2f).filter { $0 != [0x2e] }
        return names.isEmpty ? [0x2f] : names.flatMap { [0x2f] + $0 }
    }
}
