import CLinux
import Glibc

extension Descriptor {
    /// O_PATH on the directory with exactly this canonical path, NUL-terminated.
    ///
    /// - Throws: ESTALE when the path has led elsewhere, because a directory on the way is a symlink now; what open(2) throws.
    package static func openExactly(_ path: [CChar]) throws(Errno) -> Descriptor {
        let place = try Descriptor.open(path, PASSHSM_O_PATH | O_DIRECTORY | O_NOFOLLOW)
        let found = try place.withProcPath { link throws(Errno) in try BytePath(cString: link).readLink() }
        guard found.cString == path else { throw Errno(rawValue: ESTALE) }
        return place
    }
}
