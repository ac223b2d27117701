import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem

/// READ, LSEEK and FSYNC of files that the kernel does not read by itself.
extension FileSystem {
    /// - Parameter isDirect: whether the answer goes straight to a program. Otherwise it goes to the kernel's page
    ///   cache.
    func read(_ reply: consuming Reply, _ number: UInt64, size: Int, offset: Int, isDirect: Bool) {
        let handle: OpenFile
        do throws(Errno) { handle = try openFiles.find(number) } catch { return reply.error(error) }
        let range = Range(at: offset, count: size)
        // The content stays in use for as long as a cached handle is open.
        guard let file = handle.inode.content else {
            return readNow(reply, handle, range)
        }
        dropPages(behind: range, of: file, handle)
        if range.count <= FileSystem.pageSize { noteSinglePage(range, handle.inode) }
        if engine.isResident(range, of: file.fill, user: reply.caller.user) {
            return readNow(reply, handle, range)
        }
        let thread = reply.caller.thread
        let (priority, isDoubtful) = Self.priority(of: reply.caller)
        let waiter = ask(for: range, of: file, PendingReply(reply), handle, priority) { [self] reply, error in
            if let error { return reply.error(Errno(error)) }
            readNow(reply, handle, range)
        }
        if isDoubtful { recheckLater(waiter, thread) }
        if !isDirect { askByPages(waiter, range, of: file, handle.inode) }
    }

    private func readNow(_ reply: consuming Reply, _ handle: OpenFile, _ range: Range<Int>) {
        let buffer = readBuffers.take(range.count)
        defer { readBuffers.putBack(buffer) }
        do throws(Errno) {
            let wanted = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
            let count = try lower(handle).read(into: wanted, at: range.lowerBound)
            reply.bytes(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        } catch { reply.error(error) }
    }

    /// The lower file of a handle, opened as the handle was.
    func lower(_ handle: OpenFile) throws(Errno) -> Descriptor {
        try handle.lower({ () throws(Errno) in try open(handle.inode, handle.flags) }, isKept: shares.isUncounted)
    }

    func seek(_ reply: consuming Reply, _ number: UInt64, offset: Int, whence: Int32) {
        do throws(Errno) {
            let handle = try openFiles.find(number)
            let lower = try lower(handle)
            let file = handle.inode.content
            guard let file, !file.fill.isComplete, [PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE].contains(whence) else {
                return reply.offset(try check { lseek(lower.raw, offset, whence) })
            }
            // A hole of the lower file may be content that is absent. Sparse-aware tools would take it for zeros.
            let size = try lower.stat().st_size
            if offset < 0 || offset >= size { throw Errno(rawValue: ENXIO) }
            reply.offset(whence == PASSHSM_SEEK_DATA ? offset : size)
        } catch { reply.error(error) }
    }

    func fsync(_ reply: consuming Reply, _ number: UInt64, dataOnly: Bool) {
        reply.result { () throws(Errno) in
            let handle = try openFiles.find(number)
            if let file = handle.inode.content { try file.stored.sync() }
            let lower = try lower(handle)
            if dataOnly { try lower.fdatasync() } else { try lower.fsync() }
        }
    }
}
