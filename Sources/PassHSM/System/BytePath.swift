import Glibc

/// A path as Linux knows it: bytes without NUL, in which only `/` has a meaning.
///
/// Coded as the text of ``ArgumentText``, so that JSON loses none of its bytes.
package struct BytePath: Hashable, Sendable {
    package let bytes: [UInt8]

    /// - Parameter bytes: the path; what follows a NUL is dropped.
    package init(_ bytes: some Collection<UInt8>) { self.bytes = Array(bytes.prefix { $0 != 0 }) }

    package init(_ text: String) { self.init(Array(text.utf8)) }

    /// Calls `body` with the path as a C string, valid during the call.
    package func withCString<Result>(
        _ body: (UnsafePointer<CChar>) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        let characters = bytes.map { CChar(bitPattern: $0) } + [0]
        return try characters.withUnsafeBufferPointer { buffer throws(Errno) in
            guard let pointer = buffer.baseAddress else { throw Errno(rawValue: EINVAL) }
            return try body(pointer)
        }
    }

    /// The bytes, NUL-terminated.
    package var cString: [CChar] { bytes.map { CChar(bitPattern: $0) } + [0] }

    package var isAbsolute: Bool { bytes.first == UInt8(ascii: "/") }

    /// The names between the slashes; `.` and `..` are names like others.
    package var components: [[UInt8]] { bytes.split(separator: UInt8(ascii: "/")).map(Array.init) }

    /// The absolute path of `components`.
    package init(components: some Sequence<[UInt8]>) {
        let joined = components.flatMap { [UInt8(ascii: "/")] + $0 }
        self.init(joined.isEmpty ? [UInt8(ascii: "/")] : joined)
    }

    /// This path and `name` below it.
    package func appending(_ name: String) -> BytePath {
        BytePath(bytes + (bytes.last == UInt8(ascii: "/") ? [] : [UInt8(ascii: "/")]) + Array(name.utf8))
    }

    /// This path and `path`, which is relative, below it.
    package func appending(_ path: BytePath) -> BytePath {
        BytePath(bytes + (bytes.last == UInt8(ascii: "/") ? [] : [UInt8(ascii: "/")]) + path.bytes)
    }

    /// Whether `other` is this path or below it. Both must be absolute, without `.`, `..` and doubled slashes.
    package func contains(_ other: BytePath) -> Bool {
        if bytes == [UInt8(ascii: "/")] { return other.isAbsolute }
        guard other.bytes.starts(with: bytes) else { return false }
        return other.bytes.count == bytes.count || other.bytes[bytes.count] == UInt8(ascii: "/")
    }

    /// readlink(2).
    ///
    /// - Throws: EINVAL when the path is not a symlink.
    package func readLink() throws(Errno) -> BytePath {
        try withCString { path throws(Errno) in
            var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
            let size = try check {
                buffer.withUnsafeMutableBufferPointer { buffer in
                    buffer.baseAddress.map { readlink(path, $0, buffer.count) } ?? -1
                }
            }
            return BytePath(buffer.prefix(size).map { UInt8(bitPattern: $0) })
        }
    }

    /// stat(2), following symlinks.
    package func stat() throws(Errno) -> stat {
        try withCString { path throws(Errno) in
            var result = Glibc.stat()
            _ = try check { fstatat(AT_FDCWD, path, &result, 0) }
            return result
        }
    }

    /// lstat(2).
    package func linkStat() throws(Errno) -> stat {
        try withCString { path throws(Errno) in
            var result = Glibc.stat()
            _ = try check { fstatat(AT_FDCWD, path, &result, AT_SYMLINK_NOFOLLOW) }
            return result
        }
    }

    /// realpath(3): the absolute path without symlinks, `.` and `..`. The kernel looks up every component.
    package func real() throws(Errno) -> BytePath {
        try withCString { path throws(Errno) in
            guard let result = realpath(path, nil) else { throw Errno(rawValue: errno) }
            defer { free(result) }
            return BytePath(cString: result)
        }
    }

    /// A copy of a C string.
    package init(cString: UnsafePointer<CChar>) {
        self.init(UnsafeRawBufferPointer(start: cString, count: strlen(cString)))
    }

    /// getcwd(3). The kernel answers without asking a file system.
    package static func currentDirectory() throws(Errno) -> BytePath {
        guard let result = getcwd(nil, 0) else { throw Errno(rawValue: errno) }
        defer { free(result) }
        return BytePath(cString: result)
    }
}

extension BytePath: CustomStringConvertible {
    /// The text for people: see ``ArgumentText/readable(_:)``.
    package var description: String { ArgumentText.readable(ArgumentText.encode(bytes)) }
}

extension BytePath: Codable {
    package init(from decoder: any Decoder) throws {
        self.init(ArgumentText.decode(try decoder.singleValueContainer().decode(String.self)))
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(ArgumentText.encode(bytes))
    }
}
