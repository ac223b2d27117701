import CLinux
import Glibc

/// Being alone with a file, and freeing what it occupies.
extension Descriptor {
    /// fcntl(2), F_SETLEASE with F_WRLCK: from now on nobody else has the file open or mapped, and who opens it waits for
    /// ``dropLease()``, at most for /proc/sys/fs/lease-break-time. This descriptor must be open for writing.
    ///
    /// - Throws: EAGAIN while somebody has it open (O_PATH aside) or mapped; EINVAL where there are no leases.
    package func takeWriteLease() throws(Errno) { _ = try check { passhsm_take_write_lease(raw) } }

    /// Gives the lease back.
    package func dropLease() { _ = passhsm_drop_lease(raw) }

    /// fallocate(2) with PUNCH_HOLE: frees every block of a file of `size` bytes, whose size stays.
    ///
    /// Far beyond the end: pages that somebody still has in a pipe (splice(2)) are let go of whole, and not cleared, as
    /// those at the edge of a hole would be.
    package func freeContent(size: Int) throws(Errno) {
        let length = (size / Self.freeingUnit + 1) * Self.freeingUnit
        let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
        _ = try check { passhsm_fallocate(raw, mode, 0, length) }
    }

    /// More than the largest folio of any page cache.
    private static let freeingUnit = 1 << 30
}
