import CFuse
import CLinux
import Glibc
import HSMSystem

/// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR and FSYNCDIR.
extension FileSystem {
    func opendir(_ reply: consuming Reply, _ node: fuse_ino_t) {
        do throws(Errno) {
            let inode = try inode(node)
            let directory = OpenDirectory(inode, isRoot: inode === root, try openForReading(inode))
            var answer = passhsm_open_out()
            answer.fh = try openDirectories.insert(directory, .directory, of: node)
            streams.use(directory)
            openHandles.add(1)
            // The kernel may keep the listing when only this mount changes the directory.
            if options.cache == .exclusive { answer.open_flags = UInt32(FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE) }
            if !reply.open(answer) { closeDirectory(answer.fh) }
        } catch { reply.error(error) }
    }

    private func openForReading(_ directory: Inode) throws(Errno) -> Descriptor {
        try directory === root
            ? tree.root.reopen(O_RDONLY | O_DIRECTORY) : open(directory, O_RDONLY | O_DIRECTORY)
    }

    func releasedir(_ reply: consuming Reply, _ number: UInt64) {
        closeDirectory(number)
        reply.done()
    }

    private func closeDirectory(_ number: UInt64) {
        guard let directory = openDirectories.remove(number) else { return }
        openHandles.add(-1)
        streams.end(directory)
    }

    func fsyncdir(_ reply: consuming Reply, _ number: UInt64, dataOnly: Bool) {
        reply.result { () throws(Errno) in
            let lower = try openForReading(openDirectories.find(number).inode)
            if dataOnly { try lower.fdatasync() } else { try lower.fsync() }
        }
    }

    /// READDIR, and with `plus` READDIRPLUS, which gives the kernel a reference to every entry.
    func readdir(_ reply: consuming Reply, _ number: UInt64, size: Int, offset: Int, plus: Bool) {
        let directory: OpenDirectory
        do throws(Errno) { directory = try openDirectories.find(number) } catch { return reply.error(error) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { buffer.deallocate() }
        var used = 0
        var failure: Errno?
        do throws(Errno) {
            let isKept = try directory.entries(from: offset, size: size) { () throws(Errno) in
                try openForReading(directory.inode)
            } _: { lower, entry throws(Errno) in
                if directory.isRoot && isHidden(entry.name, in: fuse_ino_t(FUSE_ROOT_ID)) { return true }
                let room = UnsafeMutableRawBufferPointer(rebasing: buffer[used...])
                guard let count = plus ? addPlus(entry, lower, room) : add(entry, room) else { return false }
                used += count
                return true
            }
            if isKept { streams.use(directory) }
        } catch { failure = error }
        // The entries that were read before the error are answered. The error comes with the next request.
        if let failure, used == 0 { return reply.error(failure) }
        reply.bytes(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
    }

    /// Appends a plain entry and returns its size; nil when there is no room.
    private func add(_ entry: DirectoryReader.Entry, _ room: UnsafeMutableRawBufferPointer) -> Int? {
        var status = stat()
        status.st_ino = ino_t(entry.inode)
        status.st_mode = mode_t(entry.type) << 12
        let text = room.baseAddress?.assumingMemoryBound(to: CChar.self)
        let count = fuse_add_direntry(nil, text, room.count, entry.name, &status, entry.next)
        return count <= room.count ? count : nil
    }

    private func addPlus(
        _ entry: DirectoryReader.Entry, _ directory: Descriptor, _ room: UnsafeMutableRawBufferPointer
    ) -> Int? {
        var param = fuse_entry_param()
        // Checked before the lookup, because a reference that is not handed on would have to be taken back.
        if fuse_add_direntry_plus(nil, nil, 0, entry.name, &param, 0) > room.count { return nil }
        if !entry.isDotOrDotDot, let found = try? lookup(entry.name, in: directory) {
            param = found.parameters
        } else {
            // An entry without an inode: the kernel takes only its name, number and type.
            param.attr.st_ino = ino_t(entry.inode)
            param.attr.st_mode = mode_t(entry.type) << 12
        }
        let text = room.baseAddress?.assumingMemoryBound(to: CChar.self)
        return fuse_add_direntry_plus(nil, text, room.count, entry.name, &param, entry.next)
    }
}
