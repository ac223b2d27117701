import CLinux
import Glibc

/// Numbers for the inodes of one file system. A number is made from the inode's file handle, so it leads back to the
/// inode without a table, even after a restart. Safe on every thread.
///
/// The highest bits of a number tell how the other bits are divided between inode number and generation. The generation
/// makes sure that a reused inode number does not lead to the new file:
///
/// | Highest bits | Inode number | Generation |
/// |---|---|---|
/// | 0 | 31 bits | all 32 bits |
/// | 10 | 40 bits | the 22 lowest |
/// | 110 | 48 bits | the 13 lowest |
///
/// btrfs never reuses an inode number. There the 0 is followed by 23 bits of the subvolume's id and 40 bits of the
/// inode number. No number is 0 or 1, and none begins with 111: those are free for other purposes.
package struct NodeNumbering: Sendable {
    private enum FileSystem { case ext, xfs, btrfs, tmpfs }

    /// ``number(of:)`` never returns this number or a larger one.
    package static let firstFree: UInt64 = 0b111 << 61

    private let fileSystem: FileSystem
    /// Whether an inode number alone leads to its inode, because the current generation can be looked up.
    private let tellsGenerations: Bool

    /// A way to divide a number.
    private struct Form {
        let prefix: UInt64
        let inodeBits: Int
        let generationBits: Int

        static let exact = Form(prefix: 0, inodeBits: 31, generationBits: 32)
        static let wide = Form(prefix: 0b10 << 62, inodeBits: 40, generationBits: 22)
        static let widest = Form(prefix: 0b110 << 61, inodeBits: 48, generationBits: 13)

        static func of(_ number: UInt64) -> Form? {
            switch (~number).leadingZeroBitCount {
            case 0: exact
            case 1: wide
            case 2: widest
            default: nil
            }
        }

        var generationMask: UInt64 { 1 << generationBits - 1 }
        func inode(_ number: UInt64) -> UInt64 { number >> generationBits & (1 << inodeBits - 1) }

        func number(_ inode: UInt64, _ generation: UInt32) -> UInt64? {
            guard inode > 0, inode < 1 << inodeBits else { return nil }
            return prefix | inode << generationBits | UInt64(generation) & generationMask
        }
    }

    private static let btrfsInodeBits = 40

    /// Nil on file systems whose handles this type does not know.
    ///
    /// - Parameters:
    ///   - top: a directory of the file system; O_PATH is enough.
    ///   - mount: a descriptor of its mount, open for reading.
    package init?(of top: Descriptor, mount: Descriptor) {
        switch passhsm_file_system_type(mount.raw) {
        case 0xef53: fileSystem = .ext
        case 0x5846_5342: fileSystem = .xfs
        case 0x9123_683e: fileSystem = .btrfs
        case 0x0102_1994: fileSystem = .tmpfs
        default: return nil
        }
        guard let handle = try? FileHandle(of: top), let parts = Self.parts(of: handle, fileSystem) else { return nil }
        switch fileSystem {
        case .ext, .btrfs: tellsGenerations = true
        case .tmpfs: tellsGenerations = false
        case .xfs: tellsGenerations = (try? Self.xfsGeneration(of: parts.inode, on: mount)) == parts.generation
        }
    }

    /// Takes a handle apart (KERNEL: fs/libfs.c, fs/xfs/xfs_export.c, fs/btrfs/export.h, mm/shmem.c). Nil for a handle
    /// of another kind.
    private static func parts(
        of handle: FileHandle, _ fileSystem: FileSystem
    ) -> (inode: UInt64, generation: UInt32, subvolume: UInt64)? {
        func word(_ offset: Int) -> UInt32 { handle.load(at: offset, as: UInt32.self) }
        func long(_ offset: Int) -> UInt64 { handle.load(at: offset, as: UInt64.self) }
        switch (fileSystem, handle.type, handle.count) {
        case (.ext, 1, 8), (.xfs, 1, 8): return (UInt64(word(0)), word(4), 0)
        case (.xfs, 0x81, 12): return (long(0), word(8), 0)
        case (.btrfs, 0x4d, 20): return (long(0), word(16), long(8))
        case (.tmpfs, 1, 12): return (UInt64(word(8)) << 32 | UInt64(word(4)), word(0), 0)
        default: return nil
        }
    }

    private func handle(_ inode: UInt64, _ generation: UInt32, _ subvolume: UInt64 = 0) -> FileHandle? {
        func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
        return switch fileSystem {
        case .ext: FileHandle(type: 1, bytes: bytes(UInt32(truncatingIfNeeded: inode)) + bytes(generation))
        case .xfs: FileHandle(type: 0x81, bytes: bytes(inode) + bytes(generation))
        case .btrfs: FileHandle(type: 0x4d, bytes: bytes(inode) + bytes(subvolume) + bytes(generation))
        case .tmpfs: FileHandle(type: 1, bytes: bytes(generation) + bytes(inode))
        }
    }

    /// The number of the inode; nil when its inode number does not fit. Two inodes can share a number only where the
    /// number holds part of the generation.
    package func number(of handle: FileHandle) -> UInt64? {
        guard let parts = Self.parts(of: handle, fileSystem) else { return nil }
        if fileSystem == .btrfs {
            guard parts.subvolume > 0, parts.subvolume >> 23 == 0, parts.inode >> Self.btrfsInodeBits == 0 else {
                return nil
            }
            return parts.subvolume << Self.btrfsInodeBits | parts.inode
        }
        if let number = Form.exact.number(parts.inode, parts.generation) { return number }
        guard tellsGenerations else { return nil }
        return Form.wide.number(parts.inode, parts.generation) ?? Form.widest.number(parts.inode, parts.generation)
    }

    /// The inode's generation, which tells it from earlier inodes with the same inode number. 0 for a handle of another
    /// kind.
    package func generation(of handle: FileHandle) -> UInt32 {
        Self.parts(of: handle, fileSystem)?.generation ?? 0
    }

    /// Opens the inode of a number with O_PATH.
    ///
    /// - Throws: ESTALE when the number was never made, or its inode is gone.
    package func open(_ number: UInt64, on mount: Descriptor) throws(Errno) -> Descriptor {
        guard let handle = try handle(of: number, on: mount) else { throw Errno(rawValue: ESTALE) }
        let file = try handle.open(on: mount, PASSHSM_O_PATH)
        guard try self.number(of: FileHandle(of: file)) == number else { throw Errno(rawValue: ESTALE) }
        return file
    }

    /// A handle that opens the inode of `number` if there is one.
    private func handle(of number: UInt64, on mount: Descriptor) throws(Errno) -> FileHandle? {
        guard let form = Form.of(number) else { return nil }
        if fileSystem == .btrfs {
            // Generation 0 stands for any.
            return handle(number & (1 << Self.btrfsInodeBits - 1), 0, number >> Self.btrfsInodeBits)
        }
        let inode = form.inode(number)
        if form.generationBits == 32 { return handle(inode, UInt32(truncatingIfNeeded: number)) }
        guard tellsGenerations else { return nil }
        return switch fileSystem {
        case .ext where inode <= UInt32.max: handle(inode, 0)
        case .xfs: handle(inode, try Self.xfsGeneration(of: inode, on: mount))
        case .ext, .btrfs, .tmpfs: nil
        }
    }

    private static func xfsGeneration(of inode: UInt64, on mount: Descriptor) throws(Errno) -> UInt32 {
        var generation: UInt32 = 0
        do throws(Errno) { _ = try check { passhsm_xfs_generation(mount.raw, inode, &generation) } } catch {
            // EINVAL: no inode of this file system can have this number.
            throw error.rawValue == EINVAL ? Errno(rawValue: ESTALE) : error
        }
        return generation
    }
}
