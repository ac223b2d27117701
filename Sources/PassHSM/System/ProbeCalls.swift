import CLinux
import Glibc

/// Facts about a file system (fstatfs(2)).
package struct FileSystemFacts: Sendable {
    /// The magic number, `f_type`.
    package let type: UInt64
    /// The bytes that an unprivileged user may still write.
    package let availableBytes: Int
    package let totalBytes: Int
    /// `f_fsid`. Some file systems derive it from their UUID, others from a device number, which may change with a
    /// reboot.
    package let id: UInt64
}

/// Calls that test what a file system or the kernel supports.
extension Descriptor {
    /// fstatfs(2)
    package func fileSystem() throws(Errno) -> FileSystemFacts {
        var raw = passhsm_fs()
        _ = try check { passhsm_statfs(self.raw, &raw) }
        return FileSystemFacts(
            type: raw.type, availableBytes: Int(clamping: raw.available.multipliedFullWidth(by: raw.block_size).low),
            totalBytes: Int(clamping: raw.blocks.multipliedFullWidth(by: raw.block_size).low), id: raw.id)
    }

    /// ioctl(2), FS_IOC_GETFSUUID (Linux 6.9). This descriptor must not be O_PATH.
    ///
    /// - Throws: ENOTTY where the kernel or the file system does not support it.
    package func fileSystemUUID() throws(Errno) -> [UInt8] {
        // struct fsuuid2: a length, and room for 16 bytes.
        var answer = [UInt8](repeating: 0, count: 17)
        try answer.withMutableBytes { bytes throws(Errno) in try ioctl(0x8011_1500, bytes) }
        return Array(answer[1...].prefix(Int(answer[0])))
    }

    /// Opens a file without a name in this directory (open(2), O_TMPFILE).
    package func openUnnamed() throws(Errno) -> Descriptor {
        try Descriptor.open(at: raw, ".", PASSHSM_O_TMPFILE | O_RDWR, mode: 0o600)
    }

    /// ioctl(2), FICLONE: makes this file share the whole content of `source`.
    package func clone(_ source: Descriptor) throws(Errno) {
        _ = try check { passhsm_clone_file(raw, source.raw) }
    }

    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE; the size stays.
    package func tryPunchingHole(_ range: Range<Int>) throws(Errno) {
        let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
        _ = try check { passhsm_fallocate(raw, mode, range.lowerBound, range.count) }
    }

    /// Opens a fanotify group for pre-content events (fanotify_init(2), Linux 6.14). Needs CAP_SYS_ADMIN.
    package static func preContentGroup() throws(Errno) -> Descriptor {
        Descriptor(owning: try check { passhsm_fanotify_pre_content() })
    }

    /// fanotify_mark(2) with FAN_PRE_ACCESS on the inode of `directory` itself. No read of a file raises that event.
    package func tryMarkingPreAccess(_ directory: Descriptor) throws(Errno) {
        _ = try check { passhsm_fanotify_mark_pre_access(raw, directory.raw) }
    }
}
