import Glibc
import HSMSystem

/// Reads files that hold a secret.
package enum SecretFile {
    /// The content as text; nil when the file does not exist.
    ///
    /// - Throws: when users other than the owner and the group may read it; errors of open(2) and read(2).
    package static func text(_ path: String) throws(LocationError) -> String? {
        do throws(Errno) {
            // The descriptor that is checked is the one that is read.
            let file = try BytePath(path).withCString { name throws(Errno) in
                try Descriptor.open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY)
            }
            guard try file.stat().st_mode & 0o007 == 0 else { throw Errno(rawValue: EPERM) }
            return String(decoding: try file.readToEnd(), as: UTF8.self)
        } catch {
            if error.rawValue == ENOENT || error.rawValue == ENOTDIR { return nil }
            if error.rawValue == EPERM {
                throw LocationError("\(path) holds a secret, and everyone may read it: chmod 600 \(path)")
            }
            throw LocationError("\(path): \(error.text)")
        }
    }
}
