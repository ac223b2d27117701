import CLinux
import Glibc

/// An open file descriptor. It is closed with its last reference.
///
/// The methods are the system calls of the same name. EINTR is retried, and every other errno is thrown. Offsets and
/// counts are in bytes. Every method may be called on any thread, as far as the kernel's own calls allow that.
package final class Descriptor: Sendable {
    package let raw: Int32

    package init(owning raw: Int32) { self.raw = raw }

    deinit { close(raw) }

    /// openat(2), always with O_CLOEXEC.
    package static func open(
        at directory: Int32 = AT_FDCWD, _ name: UnsafePointer<CChar>, _ flags: Int32, mode: mode_t = 0
    ) throws(Errno) -> Descriptor {
        Descriptor(owning: try check { openat(directory, name, flags | O_CLOEXEC, mode) })
    }

    /// Opens the same inode again with other flags, through /proc: for descriptors made with O_PATH.
    package func reopen(_ flags: Int32) throws(Errno) -> Descriptor {
        try withProcPath { path throws(Errno) in try Descriptor.open(path, flags & ~(O_NOFOLLOW | O_CREAT)) }
    }

    /// fcntl(2) with F_DUPFD_CLOEXEC: another descriptor of the same open file, with the lowest free number.
    package func duplicate() throws(Errno) -> Descriptor {
        Descriptor(owning: try check { fcntl(raw, F_DUPFD_CLOEXEC, 0) })
    }

    /// dup3(2): makes this descriptor's number refer to the open file of `other`. To be called before other threads
    /// know this descriptor.
    package func become(_ other: Descriptor) throws(Errno) {
        _ = try check { passhsm_dup3(other.raw, raw) }
    }

    /// Calls `body` with /proc/self/fd/N, through which calls that refuse O_PATH descriptors reach the inode.
    package func withProcPath<Result>(
        _ body: (UnsafePointer<CChar>) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        // A fixed buffer instead of a String: every lookup runs this.
        var buffer: (UInt, UInt, UInt, UInt) = (0, 0, 0, 0)
        return try withUnsafeMutablePointer(to: &buffer) { pointer throws(Errno) in
            try pointer.withMemoryRebound(to: CChar.self, capacity: 32) { text throws(Errno) in
                var digits = 1
                var rest = raw
                while rest >= 10 { (digits, rest) = (digits + 1, rest / 10) }
                let prefix: StaticString = "/proc/self/fd/"
                memcpy(text, prefix.utf8Start, prefix.utf8CodeUnitCount)
                rest = raw
                for place in (0..<digits).reversed() {
                    text[prefix.utf8CodeUnitCount + place] = CChar(48 + rest % 10)
                    rest /= 10
                }
                return try body(text)
            }
        }
    }

    /// fstatat(2) with AT_EMPTY_PATH. Works on O_PATH too.
    package func stat() throws(Errno) -> stat {
        var result = Glibc.stat()
        _ = try check { fstatat(raw, "", &result, PASSHSM_AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) }
        return result
    }

    /// statx(2): when the inode was made; nil where the file system does not record it.
    package func birthTime() -> timespec? {
        var result = timespec()
        return passhsm_birth_time(raw, &result) == 0 ? result : nil
    }

    /// ioctl(2) with the address of `argument`, which must be as large as the command demands.
    package func ioctl(_ command: UInt32, _ argument: UnsafeMutableRawBufferPointer) throws(Errno) {
        _ = try check { passhsm_ioctl(raw, UInt(command), argument.baseAddress) }
    }

    /// pread(2) until `buffer` is full or the file ends. Returns the number of bytes read.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(Errno) -> Int {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = try check { pread(raw, rest.baseAddress, rest.count, offset + done) }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// One pwrite(2) on behalf of a user, see ``OrdinaryUser``. May write fewer bytes than asked.
    package func writeForUser(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Errno) -> Int {
        try OrdinaryUser.write { () throws(Errno) in try writeOnce(bytes, at: offset) }
    }

    /// One pwrite(2). May write fewer bytes than asked.
    package func writeOnce(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Errno) -> Int {
        try check { pwrite(raw, bytes.baseAddress, bytes.count, offset) }
    }

    /// pwrite(2) until all of `bytes` is written.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Errno) {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = try writeOnce(rest, at: offset + done)
            if count == 0 { throw Errno(rawValue: EIO) }
            done += count
        }
    }

    /// lseek(2) with SEEK_DATA: the next offset with data; nil when there is none.
    package func seekData(from offset: Int) throws(Errno) -> Int? {
        do throws(Errno) {
            return try check { lseek(raw, offset, PASSHSM_SEEK_DATA) }
        } catch {
            if error.rawValue == ENXIO { return nil }
            throw error
        }
    }

    /// lseek(2) with SEEK_HOLE: the next offset without data, which is the file's end when there is no hole.
    ///
    /// - Throws: ENXIO from the end of the file on.
    package func seekHole(from offset: Int) throws(Errno) -> Int { try check { lseek(raw, offset, PASSHSM_SEEK_HOLE) } }

    package func fsync() throws(Errno) { _ = try check { Glibc.fsync(raw) } }
    package func fdatasync() throws(Errno) { _ = try check { Glibc.fdatasync(raw) } }
    /// syncfs(2)
    package func syncFileSystem() throws(Errno) { _ = try check { passhsm_syncfs(raw) } }
    /// Takes a read lease and gives it back (fcntl(2), F_SETLEASE). This descriptor must be open for reading only.
    ///
    /// - Throws: EAGAIN while the file is open for writing anywhere, or a mapping of such an open file exists.
    package func tryReadLease() throws(Errno) { _ = try check { passhsm_try_read_lease(raw) } }

    /// sync_file_range(2) with SYNC_FILE_RANGE_WAIT_BEFORE: waits for writeback that is under way. Throws its error if
    /// this descriptor has not reported it yet.
    package func checkWriteback() throws(Errno) { _ = try check { passhsm_wait_for_writeback(raw) } }
    /// ftruncate(2)
    package func truncate(to size: Int) throws(Errno) { _ = try check { ftruncate(raw, size) } }

    /// futimens(2); see ``FileTime``.
    package func setTimes(access: timespec, modification: timespec) throws(Errno) {
        var times = (access, modification)
        try withUnsafePointer(to: &times) { pointer throws(Errno) in
            try pointer.withMemoryRebound(to: timespec.self, capacity: 2) { both throws(Errno) in
                _ = try check { futimens(raw, both) }
            }
        }
    }
}

/// Special times of utimensat(2).
package enum FileTime {
    /// Leaves the time as it is (UTIME_OMIT).
    package static let omit = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)
    /// The current time (UTIME_NOW).
    package static let now = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1)
}
