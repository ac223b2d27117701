import CLinux
import Glibc

/// Exclusive use of a file (leases), freeing its blocks, and moving its content to another file.
extension Descriptor {
    /// Takes a write lease: fcntl(2), F_SETLEASE with F_WRLCK. While it lasts, no other open file or mapping of the
    /// file exists. A program that opens the file waits until ``dropLease()``, at most for
    /// /proc/sys/fs/lease-break-time. This descriptor must be open for writing.
    ///
    /// - Throws: EAGAIN while the file is open elsewhere (O_PATH aside) or mapped; EINVAL where the file system has no
    ///   leases.
    package func takeWriteLease() throws(Errno) { _ = try check { passhsm_take_write_lease(raw) } }

    /// Whether a program waits for the end of the lease, or the lease has ended already: fcntl(2), F_GETLEASE.
    package var isLeaseWanted: Bool { passhsm_has_write_lease(raw) == 0 }

    /// Gives the lease back.
    package func dropLease() { _ = passhsm_drop_lease(raw) }

    /// fallocate(2) with PUNCH_HOLE: frees every block of a file of `size` bytes. The size stays.
    ///
    /// The hole reaches far beyond the end of the file. The kernel then drops whole pages, so that pages still in a
    /// pipe (splice(2)) keep their content. It would clear pages at the edge of a smaller hole.
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
        // The file system allows no offset so large. The hole ends with the file, and the rest of its last page is
        // cleared.
        _ = try check { passhsm_fallocate(raw, mode, 0, size) }
    }

    /// As ``write(_:at:)``, but a hole of the file stays a hole where `bytes` has zeros; it reads as the same zeros.
    /// The file must reach to the end of `bytes` already, and no other thread may write there meanwhile.
    ///
    /// - Parameter unit: the size in bytes, counted from the first byte, of the pieces that are checked for zeros.
    package func writeKeepingHoles(_ bytes: UnsafeRawBufferPointer, at offset: Int, unit: Int) throws(Errno) {
        var start = 0
        while start < bytes.count {
            let isZero = bytes.isZero(at: start, unit)
            var end = min(start + unit, bytes.count)
            // Units of zeros are handled one by one, since each may be a hole.
            while !isZero && end < bytes.count && !bytes.isZero(at: end, unit) { end = min(end + unit, bytes.count) }
            let stays = isZero ? try isHole(offset + start..<offset + end) : false
            if !stays {
                try write(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), at: offset + start)
            }
            start = end
        }
    }

    /// Whether the file system reports no data in `range`. False where it does not support holes.
    private func isHole(_ range: Range<Int>) throws(Errno) -> Bool {
        guard let data = try seekData(from: range.lowerBound) else { return try stat().st_size >= range.upperBound }
        return data >= range.upperBound
    }

    /// Calls `body` while XFS has moved some blocks from its reserve to the free ones. This is for work on a full file
    /// system that frees more than it takes. The reserve is in the kernel's memory only: a process that ends in between
    /// leaves it smaller by 256 blocks until the file system is mounted again.
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
            // Others may do the same at the same time, so only the difference is put back.
            var now: UInt64 = 0
            if passhsm_xfs_reserve(raw, &now, &free) == 0 { passhsm_set_xfs_reserve(raw, now &+ (size - kept)) }
        }
        return try body()
    }

    private static let xfsType: UInt64 = 0x5846_5342
    private static let lentBlocks: UInt64 = 256

    /// Moves `range` of `source` to the same place in this file. The blocks are shared where the file system supports
    /// that (FICLONERANGE). Elsewhere the kernel copies them in steps, and each step's blocks are freed in `source`
    /// afterwards. A range that does not end at a multiple of the block size has to end where both files do.
    ///
    /// - Throws: EIO when `source` is shorter. After an error, part of the range may be in this file, and the rest in
    ///   neither file.
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
            // An error is ignored: the blocks are freed with the file in any case.
            _ = passhsm_fallocate(source.raw, mode, start, end - start)
            start = end
        }
    }

    private static let movingStep = 8 << 20
    /// More than the largest folio of any page cache.
    private static let freeingUnit = 1 << 30
}

extension UnsafeRawBufferPointer {
    /// Whether the `count` bytes from `start` on, or as many as there are, are zeros.
    fileprivate func isZero(at start: Int, _ count: Int) -> Bool {
        guard let first = baseAddress?.advanced(by: start) else { return true }
        let length = Swift.min(count, self.count - start)
        // The first byte is zero, and each other byte equals the one before it.
        return first.load(as: UInt8.self) == 0 && memcmp(first, first + 1, length - 1) == 0
    }
}
