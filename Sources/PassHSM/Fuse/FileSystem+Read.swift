import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// READ, LSEEK and FSYNC of files that the kernel does not read by itself.
extension FileSystem {
    func read(_ reply: consuming Reply, _ number: UInt64, size: Int, offset: Int) {
        let handle = OpenFile.of(number)
        let range = offset..<offset + size
        // Stays in use for as long as a cached handle is open.
        if let file = handle.inode.state.withLock(\.file), !engine.isResident(range, of: file.fill) {
            whenResident(range, of: file, PendingReply(reply), handle: handle) { [self] reply, error in
                if let error { return reply.error(Errno(error)) }
                readNow(reply, handle, size: size, offset: offset)
            }
            return
        }
        readNow(reply, handle, size: size, offset: offset)
    }

    private func readNow(_ reply: consuming Reply, _ handle: OpenFile, size: Int, offset: Int) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { buffer.deallocate() }
        do throws(Errno) {
            let count = try lower(handle).read(into: buffer, at: offset)
            reply.bytes(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        } catch { reply.error(error) }
    }

    /// The lower file of a handle: a file that is not complete has one descriptor for all its handles, so that thousands
    /// can be open.
    func lower(_ handle: OpenFile) throws(Errno) -> Descriptor {
        if handle.sharesDescriptor, let file = handle.inode.state.withLock(\.file) { return file.stored.lower }
        return try ownLower(handle)
    }

    /// The lower file opened as the handle was, for the handle alone.
    func ownLower(_ handle: OpenFile) throws(Errno) -> Descriptor {
        try handle.lower { () throws(Errno) in try open(handle.inode, handle.flags) }
    }

    func seek(_ reply: consuming Reply, _ number: UInt64, offset: Int, whence: Int32) {
        let handle = OpenFile.of(number)
        do throws(Errno) {
            let lower = try lower(handle)
            let file = handle.inode.state.withLock(\.file)
            guard let file, !file.fill.isComplete, [PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE].contains(whence) else {
                return reply.offset(try check { lseek(lower.raw, offset, whence) })
            }
            // The lower file's holes are content that is not here: sparse-aware tools would take them for zeros.
            let size = try lower.stat().st_size
            if offset < 0 || offset >= size { throw Errno(rawValue: ENXIO) }
            reply.offset(whence == PASSHSM_SEEK_DATA ? offset : size)
        } catch { reply.error(error) }
    }

    func fsync(_ reply: consuming Reply, _ number: UInt64, dataOnly: Bool) {
        let handle = OpenFile.of(number)
        reply.result { () throws(Errno) in
            if let file = handle.inode.state.withLock(\.file) { try file.stored.sync() }
            let lower = try lower(handle)
            if dataOnly { try lower.fdatasync() } else { try lower.fsync() }
        }
    }
}
