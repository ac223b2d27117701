import Glibc
import HSMRemotes
import HSMSystem

/// A file with a secret in it.
package enum SecretFile {
    /// The content as text.
    ///
    /// - Throws: when others than the owner and the group may read it, and what open(2) and read(2) throw; ENOENT is nil.
    package static func text(_ path: String) throws(LocationError) -> String? {
        do throws(Errno) {
            // What is looked at is what is read.
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
