import Glibc
import HSMCore
import HSMSystem

/// The version of a file in a directory source: 17 bytes.
///
/// The first byte tells how exact the version is. Eight bytes follow for the modification time (nanoseconds,
/// little-endian), and eight for a hash of the size, the change time and the inode number. A program can set the
/// modification time but not the change time. A file that was rewritten and given its old modification time therefore
/// has another version.
///
/// Some file systems invent inode numbers and change times. There, size and modification time alone form the version.
/// Older imports recorded these two as text, `seconds.nanoseconds-size`.
package enum DirectoryVersion {
    private static let exact: UInt8 = 1
    private static let loose: UInt8 = 2
    private static let count = 17

    /// The version of the file with this status.
    ///
    /// - Parameter isExact: see ``isExact(on:)``.
    package static func of(_ status: stat, isExact: Bool) -> RemoteVersion {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        // The value wraps around after the year 2262, in the same way wherever it is compared.
        let modified = nanoseconds(status.st_mtim)
        for value in [status.st_size] + (isExact ? [nanoseconds(status.st_ctim), Int(status.st_ino)] : []) {
            withUnsafeBytes(of: value.littleEndian) {
                for byte in $0 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            }
        }
        var bytes = [isExact ? exact : loose]
        for value in [UInt64(bitPattern: Int64(modified)), hash] {
            withUnsafeBytes(of: value.littleEndian) { bytes += $0 }
        }
        return RemoteVersion(bytes)
    }

    /// Whether the `recorded` file is the one that was `found`. The version of `found` comes from ``of(_:isExact:)``.
    ///
    /// - Parameter isMoved: the source is on another disk or at another place, so only size and modification time
    ///   count.
    package static func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool = false) -> Bool {
        guard recorded.size == found.size else { return false }
        if recorded.version == found.version { return true }
        let (old, new) = (recorded.version.bytes, found.version.bytes)
        guard new.count == count else { return false }
        guard old.count == count, [exact, loose].contains(old[0]) else {
            return recorded.version == text(modified: new[1..<9], size: found.size)
        }
        return old[1..<9] == new[1..<9] && (isMoved || old[0] == loose || new[0] == loose)
    }

    private static func nanoseconds(_ time: timespec) -> Int { time.tv_sec &* 1_000_000_000 &+ time.tv_nsec }

    /// The form that older imports recorded.
    private static func text(modified: ArraySlice<UInt8>, size: Int) -> RemoteVersion {
        let time = Int(Int64(bitPattern: modified.reversed().reduce(0) { $0 << 8 | UInt64($1) }))
        let (second, rest) = (time / 1_000_000_000, time % 1_000_000_000)
        let (whole, fraction) = rest < 0 ? (second - 1, rest + 1_000_000_000) : (second, rest)
        let digits = String(fraction)
        let padded = String(repeating: "0", count: 9 - digits.count) + digits
        return RemoteVersion(Array("\(whole).\(padded)-\(size)".utf8))
    }

    /// File systems (`f_type` of statfs(2)) whose inode numbers and change times are stored on the disk or by the
    /// server, and are permanent. FUSE (with virtiofs), FAT, overlayfs, CIFS and 9P are left out: each mount may invent
    /// these numbers.
    private static let lasting: Set<UInt64> = [
        0xef53,  // ext2, ext3, ext4
        0x5846_5342,  // XFS
        0x9123_683e,  // btrfs
        0xf2f5_2010,  // F2FS
        0x2fc1_2fc1,  // ZFS
        0xca45_1a4e,  // bcachefs
        0x0102_1994,  // tmpfs
        0x6969,  // NFS
        0x3153_464a,  // JFS
        0x00c3_6400,  // Ceph
        0x0116_1970,  // GFS2
        0x7461_636f,  // OCFS2
        0x7371_7368,  // SquashFS
        0xe0f5_e1e2,  // EROFS
    ]

    /// Whether inode numbers and change times are meaningful on the file system of `file`; O_PATH is enough.
    package static func isExact(on file: Descriptor) -> Bool {
        (try? file.fileSystem()).map { lasting.contains($0.type) } ?? false
    }
}
