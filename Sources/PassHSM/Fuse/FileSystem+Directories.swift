import CFuse
import CLinux
import Glibc
import HSMSystem

/// An open directory: entries that were read from the lower directory and not handed on yet.
final class OpenDirectory: Sendable {
    let lower: Descriptor
    let isRoot: Bool
    private let lock = Lock()
    // Guarded by `lock`.
    private nonisolated(unsafe) var buffer = [UInt8](repeating: 0, count: 64 << 10)
    private nonisolated(unsafe) var filled = 0
    private nonisolated(unsafe) var offset = 0
    /// The position of the entry at `offset`, as the kernel knows it.
    private nonisolated(unsafe) var position = 0

    init(_ lower: Descriptor, isRoot: Bool) {
        self.lower = lower
        self.isRoot = isRoot
    }

    /// Calls `body` with the entries from `start` on, until it returns false or there are no more. An entry for which it
    /// returned false comes again.
    func entries(
        from start: Int, _ body: (DirectoryReader.Entry) throws(Errno) -> Bool
    ) throws(Errno) {
        try lock.withLock { () throws(Errno) in
            if start != position {
                _ = try check { lseek(lower.raw, start, SEEK_SET) }
                (filled, offset, position) = (0, 0, start)
            }
            while true {
                if offset >= filled {
                    filled = try buffer.withMutableBytes { bytes throws(Errno) in
                        try DirectoryReader.fill(bytes, from: lower)
                    }
                    offset = 0
                    if filled == 0 { return }
                }
                let goesOn = try buffer.withBytes { bytes throws(Errno) in
                    let bytes = UnsafeRawBufferPointer(rebasing: bytes[..<filled])
                    while let (entry, following) = DirectoryReader.entry(in: bytes, at: offset) {
                        if !(try body(entry)) { return false }
                        (offset, position) = (following, entry.next)
                    }
                    return true
                }
                if !goesOn { return }
                offset = filled
            }
        }
    }

    static func of(_ number: UInt64) -> OpenDirectory {
        guard let pointer = UnsafeRawPointer(bitPattern: UInt(number)) else {
            preconditionFailure("the kernel sent the directory handle 0")
        }
        return Unmanaged<OpenDirectory>.fromOpaque(pointer).takeUnretainedValue()
    }
}

/// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR and FSYNCDIR.
extension FileSystem {
    func opendir(_ reply: consuming Reply, _ node: fuse_ino_t) {
        do throws(Errno) {
            let inode = inode(node)
            let lower =
                try inode === root
                ? tree.root.reopen(O_RDONLY | O_DIRECTORY) : open(inode, O_RDONLY | O_DIRECTORY)
            let directory = Unmanaged.passRetained(OpenDirectory(lower, isRoot: inode === root))
            openHandles.add(1)
            var answer = passhsm_open_out()
            answer.fh = UInt64(UInt(bitPattern: directory.toOpaque()))
            // The kernel may keep the listing where nobody else can change the directory.
            if options.cache == .exclusive { answer.open_flags = UInt32(FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE) }
            if !reply.open(answer) {
                openHandles.add(-1)
                directory.release()
            }
        } catch { reply.error(error) }
    }

    func releasedir(_ reply: consuming Reply, _ number: UInt64) {
        openHandles.add(-1)
        Unmanaged.passUnretained(OpenDirectory.of(number)).release()
        reply.done()
    }

    func fsyncdir(_ reply: consuming Reply, _ number: UInt64, dataOnly: Bool) {
        reply.result { () throws(Errno) in
            let lower = OpenDirectory.of(number).lower
            if dataOnly { try lower.fdatasync() } else { try lower.fsync() }
        }
    }

    /// READDIR, and with `plus` READDIRPLUS, which gives the kernel a reference to every entry.
    func readdir(_ reply: consuming Reply, _ number: UInt64, size: Int, offset: Int, plus: Bool) {
        let directory = OpenDirectory.of(number)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { buffer.deallocate() }
        var used = 0
        var failure: Errno?
        do throws(Errno) {
            try directory.entries(from: offset) { entry throws(Errno) in
                if directory.isRoot && isHidden(entry.name, in: fuse_ino_t(FUSE_ROOT_ID)) { return true }
                let room = UnsafeMutableRawBufferPointer(rebasing: buffer[used...])
                guard let count = plus ? addPlus(entry, directory, room) : add(entry, room) else { return false }
                used += count
                return true
            }
        } catch { failure = error }
        // What was read before the error is answered; the error comes with the next request.
        if let failure, used == 0 { return reply.error(failure) }
        reply.bytes(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
    }

    /// Appends a plain entry; nil when there is no room.
    private func add(_ entry: DirectoryReader.Entry, _ room: UnsafeMutableRawBufferPointer) -> Int? {
        var status = stat()
        status.st_ino = ino_t(entry.inode)
        status.st_mode = mode_t(entry.type) << 12
        let text = room.baseAddress?.assumingMemoryBound(to: CChar.self)
        let count = fuse_add_direntry(nil, text, room.count, entry.name, &status, entry.next)
        return count <= room.count ? count : nil
    }

    private func addPlus(
        _ entry: DirectoryReader.Entry, _ directory: OpenDirectory, _ room: UnsafeMutableRawBufferPointer
    ) -> Int? {
        var param = fuse_entry_param()
        // Before the lookup: a reference that is not handed on would have to be taken back.
        if fuse_add_direntry_plus(nil, nil, 0, entry.name, &param, 0) > room.count { return nil }
        if !entry.isDotOrDotDot, let found = try? lookup(entry.name, in: directory.lower) {
            param = found
        } else {
            // Without an inode: the kernel takes name, number and type alone.
            param.attr.st_ino = ino_t(entry.inode)
            param.attr.st_mode = mode_t(entry.type) << 12
        }
        let text = room.baseAddress?.assumingMemoryBound(to: CChar.self)
        return fuse_add_direntry_plus(nil, text, room.count, entry.name, &param, entry.next)
    }
}
