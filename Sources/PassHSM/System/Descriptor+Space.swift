import CLinux
import Glibc

/// Being alone with a file, freeing what it occupies, and moving that to another file.
extension Descriptor {
    /// fcntl(2), F_SETLEASE with F_WRLCK: from now on nobody else has the file open or mapped, and who opens it waits for
    /// ``dropLease()``, at most for /proc/sys/fs/lease-break-time. This descriptor must be open for writing.
    ///
    /// - Throws: EAGAIN while somebody has it open (O_PATH aside) or mapped; EINVAL where there are no leases.
    package func takeWriteLease() throws(Errno) { _ = try check { passhsm_take_write_lease(raw) } }

    /// fcntl(2), F_GETLEASE: somebody waits for the end of the lease that was taken, or it has ended.
    package var isLeaseWanted: Bool { passhsm_has_write_lease(raw) == 0 }

    /// Gives the lease back.
    package func dropLease() { _ = passhsm_drop_lease(raw) }

    /// fallocate(2) with PUNCH_HOLE: frees every block of a file of `size` bytes, whose size stays.
    ///
    /// Far beyond the end: pages that somebody still has in a pipe (splice(2)) are let go of whole, and not cleared, as
    /// those at the edge of a hole would be.
    package func freeContent(size: Int) throws(Errno) {
        let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
        let (length, isTooLarge) = (size / Self.freeingUnit + 1).multipliedReportingOverflow(by: Self.freeingUnit)
        if !isTooLarge {
            do throws(Errno) {
                _ = try check { passhsm_fallocate(raw, mode, 0, length) }
                return
            } catch {
                guard error.rawValue == EFBIG else { throw error }
            }
        }
        // No file can end there. Up to its own end, the rest of its last page is cleared.
        _ = try check { passhsm_fallocate(raw, mode, 0, size) }
    }

    /// As ``write(_:at:)``, but where `bytes` has zeros and the file has a hole, the hole stays, and reads as these zeros. The
    /// file ends behind `bytes` already; nobody else writes there meanwhile.
    ///
    /// - Parameter unit: of so many bytes, from the first on, all have to be zeros.
    package func writeKeepingHoles(_ bytes: UnsafeRawBufferPointer, at offset: Int, unit: Int) throws(Errno) {
        var start = 0
        while start < bytes.count {
            let isZero = bytes.isZero(at: start, unit)
            var end = min(start + unit, bytes.count)
            // Zeros one unit after the other: each may be a hole.
            while !isZero && end < bytes.count && !bytes.isZero(at: end, unit) { end = min(end + unit, bytes.count) }
            let stays = isZero ? try isHole(offset + start..<offset + end) : false
            if !stays {
                try write(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), at: offset + start)
            }
            start = end
        }
    }

    /// Whether the file system says that there is no data in `range`; false where it does not know holes.
    private func isHole(_ range: Range<Int>) throws(Errno) -> Bool {
        guard let data = try seekData(from: range.lowerBound) else { return try stat().st_size >= range.upperBound }
        return data >= range.upperBound
    }

    /// Calls `body` while XFS has lent some blocks of its reserve to the free ones: for what frees more than it takes, where
    /// nothing is free. The reserve is in the kernel's memory alone; a process that ends in between leaves it smaller by
    /// 256 blocks until the file system is mounted anew.
    ///
    /// - Throws: ENOSPC on other file systems, without CAP_SYS_ADMIN, and where the reserve is used up.
    package func withReserveLent<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        var (size, free): (UInt64, UInt64) = (0, 0)
        guard passhsm_file_system_type(raw) == Self.xfsType, passhsm_xfs_reserve(raw, &size, &free) == 0,
            free > 0, free <= size
        else { throw Errno(rawValue: ENOSPC) }
        let kept = free - min(free, Self.lentBlocks)
        guard passhsm_set_xfs_reserve(raw, kept) == 0 else { throw Errno(rawValue: ENOSPC) }
        defer {
            // Others may lend at the same time: what counts is the difference.
            var now: UInt64 = 0
            if passhsm_xfs_reserve(raw, &now, &free) == 0 { passhsm_set_xfs_reserve(raw, now &+ (size - kept)) }
        }
        return try body()
    }

    private static let xfsType: UInt64 = 0x5846_5342
    private static let lentBlocks: UInt64 = 256

    /// Moves `range` of `source` to the same place in this file: shared where the file system can do that (FICLONERANGE),
    /// else copied by the kernel in steps, each of which is freed in `source` when it is done. A range that does not end at
    /// a multiple of the block size has to end where both files do.
    ///
    /// - Throws: EIO when `source` is shorter; after an error the range may be in part here, and in part nowhere.
    package func takeContent(_ range: Range<Int>, from source: Descriptor) throws(Errno) {
        if passhsm_clone_range(raw, source.raw, range.lowerBound, range.count) == 0 { return }
        var start = range.lowerBound
        while start < range.upperBound {
            let end = min(range.upperBound, start + Self.movingStep)
            var (from, to) = (start, start)
            while to < end {
                let count = try check { passhsm_copy_file_range(source.raw, &from, raw, &to, end - to, 0) }
                if count == 0 { throw Errno(rawValue: EIO) }
            }
            let mode = PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE
            // Only space: it goes with the file in any case.
            _ = passhsm_fallocate(source.raw, mode, start, end - start)
            start = end
        }
    }

    private static let movingStep = 8 << 20
    /// More than the largest folio of any page cache.
    private static let freeingUnit = 1 << 30
}

extension UnsafeRawBufferPointer {
    /// Whether the `count` bytes from `start` on, or those that are left, are zeros.
    fileprivate func isZero(at start: Int, _ count: Int) -> Bool {
        guard let first = baseAddress?.advanced(by: start) else { return true }
        let length = Swift.min(count, self.count - start)
        // Each byte is the one before it, and the first is zero.
        return first.load(as: UInt8.self) == 0 && memcmp(first, first + 1, length - 1) == 0
    }
}
