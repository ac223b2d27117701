import CFuse
import HSMCore
import Synchronization

/// How many requests of each kind came, by opcode. Every request updates it, without a lock.
package final class RequestCounters: Sendable {
    private static let names: [(fuse_opcode, String)] = [
        (FUSE_LOOKUP, "lookup"), (FUSE_FORGET, "forget"), (FUSE_GETATTR, "getattr"), (FUSE_SETATTR, "setattr"),
        (FUSE_READLINK, "readlink"), (FUSE_SYMLINK, "symlink"), (FUSE_MKNOD, "mknod"), (FUSE_MKDIR, "mkdir"),
        (FUSE_UNLINK, "unlink"), (FUSE_RMDIR, "rmdir"), (FUSE_RENAME, "rename"), (FUSE_LINK, "link"),
        (FUSE_OPEN, "open"), (FUSE_READ, "read"), (FUSE_WRITE, "write"), (FUSE_STATFS, "statfs"),
        (FUSE_RELEASE, "release"), (FUSE_FSYNC, "fsync"), (FUSE_SETXATTR, "setxattr"), (FUSE_GETXATTR, "getxattr"),
        (FUSE_LISTXATTR, "listxattr"), (FUSE_REMOVEXATTR, "removexattr"), (FUSE_FLUSH, "flush"),
        (FUSE_OPENDIR, "opendir"), (FUSE_READDIR, "readdir"), (FUSE_RELEASEDIR, "releasedir"),
        (FUSE_FSYNCDIR, "fsyncdir"), (FUSE_SETLK, "setlk"), (FUSE_SETLKW, "setlkw"), (FUSE_ACCESS, "access"),
        (FUSE_CREATE, "create"), (FUSE_INTERRUPT, "interrupt"), (FUSE_BATCH_FORGET, "forget_multi"),
        (FUSE_FALLOCATE, "fallocate"), (FUSE_READDIRPLUS, "readdirplus"), (FUSE_RENAME2, "rename2"),
        (FUSE_LSEEK, "lseek"), (FUSE_COPY_FILE_RANGE, "copy_file_range"), (FUSE_IOCTL, "ioctl"),
        (fuse_opcode(UInt32(PASSHSM_FUSE_TMPFILE)), "tmpfile"), (fuse_opcode(UInt32(PASSHSM_FUSE_STATX)), "statx"),
    ]
    /// A class, because an atomic value cannot be in an array itself.
    private final class Count: Sendable {
        let value = Atomic<Int>(0)
    }

    private let counts = (0..<64).map { _ in Count() }

    func count(_ opcode: UInt32) { counts[min(Int(opcode), 63)].value.add() }

    /// The kinds that came, by name.
    package var snapshot: [(name: String, value: Int)] {
        Self.names.map { (name: $0.1, value: counts[Int($0.0.rawValue)].value.load(ordering: .relaxed)) }
            .filter { $0.value > 0 }
    }
}
