import Glibc
import HSMCore
import HSMSystem

/// Where a remote tier is, as the command line and the configuration say it: a plain path, or a `file://` URL.
package struct RemoteLocation: Hashable, Sendable, CustomStringConvertible {
    /// The absolute path, without empty and `.` components; `..` and symlinks are the kernel's to resolve.
    package let path: [UInt8]

    /// A plain path, relative ones from the current directory; or a `file://` URL, in which `%` and two hexadecimal
    /// digits stand for any byte but NUL. Text with `://` behind a scheme's letters is a URL.
    ///
    /// - Throws: for an empty text, another scheme, another host, and a malformed URL. Nothing is looked up.
    package init(_ argument: BytePath) throws(LocationError) {
        guard let scheme = Self.scheme(of: argument.bytes) else {
            guard !argument.bytes.isEmpty else { throw LocationError("the source has no name") }
            path = Self.tidy(try Self.absolute(argument).bytes)
            return
        }
        guard scheme.lowercased() == "file" else {
            throw LocationError(
                "\(argument): \(scheme):// is not supported; a source is a directory's path or file:// URL")
        }
        var rest = Array(argument.bytes.dropFirst(scheme.utf8.count + 3))
        if rest.starts(with: "localhost/".utf8) { rest.removeFirst(9) }
        guard rest.first == 0x2f else {
            throw LocationError("\(argument): a file:// URL has three slashes and an absolute path, and no host")
        }
        path = Self.tidy(try Self.decode(rest, of: argument))
    }

    /// The same for text, such as a URL from the configuration.
    package init(_ argument: String) throws(LocationError) { try self.init(BytePath(argument)) }

    /// The location as it is kept in the configuration: `file://` and the path, in which everything but the unreserved
    /// characters of RFC 3986 and the slash is percent-encoded. Equal paths have equal URLs.
    package var url: String {
        let hexadecimal = Array("0123456789ABCDEF".utf8)
        var text = Array("file://".utf8)
        for byte in path {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x2f, 0x5f, 0x7e: text.append(byte)
            default: text += [0x25, hexadecimal[Int(byte >> 4)], hexadecimal[Int(byte & 15)]]
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    package var description: String { url }

    /// The source behind the location.
    ///
    /// - Throws: when there is no directory, or it cannot be opened.
    package func open() throws(LocationError) -> any RemoteSource {
        do throws(Errno) { return try DirectorySource(path: path, location: url) } catch {
            let name = BytePath(path)
            switch error.rawValue {
            case ENOENT: throw LocationError("the source \(name) does not exist")
            case ENOTDIR: throw LocationError("the source \(name) is not a directory")
            default: throw LocationError("the source \(name) cannot be opened: \(error.text)")
            }
        }
    }

    /// What stands before `://`, when it can be a URL's scheme.
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

    private static func decode(_ bytes: [UInt8], of argument: BytePath) throws(LocationError) -> [UInt8] {
        var path: [UInt8] = []
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            if byte == 0x3f || byte == 0x23 {
                throw LocationError("\(argument): write ? as %3F and # as %23 in a file:// URL")
            }
            guard byte == 0x25 else {
                path.append(byte)
                continue
            }
            let digits = String(decoding: bytes[index..<min(index + 2, bytes.count)], as: UTF8.self)
            let isHexadecimal = digits.utf8.count == 2 && digits.allSatisfy(\.isHexDigit)
            guard isHexadecimal, let value = UInt8(digits, radix: 16), value != 0 else {
                throw LocationError("\(argument): %\(digits) is not a byte of a path; write % as %25")
            }
            path.append(value)
            index += 2
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
