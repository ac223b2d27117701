import CLinux
import Glibc

extension Descriptor {
    /// Opens the directory with exactly this canonical path, NUL-terminated, with O_PATH.
    ///
    /// - Throws: ESTALE when the path led elsewhere, because a directory on the way has become a symlink; errors of
    ///   open(2).
    package static func openExactly(_ path: [CChar]) throws(Errno) -> Descriptor {
        let place = try Descriptor.open(path, PASSHSM_O_PATH | O_DIRECTORY | O_NOFOLLOW)
        let found = try place.withProcPath { link throws(Errno) in try BytePath(cString: link).readLink() }
        guard found.cString == path else { throw Errno(rawValue: ESTALE) }
        return place
    }
}
