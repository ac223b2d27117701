import CLinux
import Glibc

/// What a file system says of itself (fstatfs(2)).
package struct FileSystemFacts: Sendable {
    /// The magic number, `f_type`.
    package let type: UInt64
    /// Bytes that an unprivileged user could still write.
    package let availableBytes: Int
    package let totalBytes: Int
    /// `f_fsid`: some file systems make it of their UUID, others of a device number, which a reboot may change.
    package let id: UInt64
}

/// Calls that are made to learn whether they work.
extension Descriptor {
    /// fstatfs(2)
    package func fileSystem() throws(Errno) -> FileSystemFacts {
        var raw = passhsm_fs()
        _ = try check { passhsm_statfs(self.raw, &raw) }
        return FileSystemFacts(
            type: raw.type, availableBytes: Int(clamping: raw.available.multipliedFullWidth(by: raw.block_size).low),
            totalBytes: Int(clamping: raw.blocks.multipliedFullWidth(by: raw.block_size).low), id: raw.id)
    }

    /// ioctl(2), FS_IOC_GETFSUUID (Linux 6.9). This descriptor must not be one of O_PATH.
    ///
    /// - Throws: ENOTTY where the kernel or the file system has none.
    package func fileSystemUUID() throws(Errno) -> [UInt8] {
        // struct fsuuid2: a length, and room for 16 bytes.
        var answer = [UInt8](repeating: 0, count: 17)
        try answer.withMutableBytes { bytes throws(Errno) in try ioctl(0x8011_1500, bytes) }
        return Array(answer[1...].prefix(Int(answer[0])))
    }

    /// A file without a name in the directory that this is open on (open(2), O_TMPFILE).
    package func openUnnamed() throws(Errno) -> Descriptor {
        try Descriptor.open(at: raw, ".", PASSHSM_O_TMPFILE | O_RDWR, mode: 0o600)
    }

    /// ioctl(FICLONE): this file shares all of the content of `source`.
    package func clone(_ source: Descriptor) throws(Errno) {
        _ = try check { passhsm_clone_file(raw, source.raw) }
    }

    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE; the size stays.
    package func tryPunchingHole(_ range: Range<Int>) throws(Errno) {
        let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
        _ = try check { passhsm_fallocate(raw, mode, range.lowerBound, range.count) }
    }

    /// A fanotify group of the class for pre-content events (fanotify_init(2), Linux 6.14); needs CAP_SYS_ADMIN.
    package static func preContentGroup() throws(Errno) -> Descriptor {
        Descriptor(owning: try check { passhsm_fanotify_pre_content() })
    }

    /// fanotify_mark(2) for FAN_PRE_ACCESS on the inode of `directory` itself, which no read of a file raises.
    package func tryMarkingPreAccess(_ directory: Descriptor) throws(Errno) {
        _ = try check { passhsm_fanotify_mark_pre_access(raw, directory.raw) }
    }
}
