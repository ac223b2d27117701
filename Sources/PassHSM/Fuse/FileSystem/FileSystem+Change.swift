import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem

/// WRITE, truncation and COPY_FILE_RANGE: local changes, also to files that are not complete.
///
/// The rules for incomplete files: The file becomes dirty before its first byte changes. A granule that is changed in
/// part is filled first. A granule that is changed whole is not filled, but no fill may touch it meanwhile (an
/// exclusive write).
extension FileSystem {
    /// Changes bytes of the lower file. Returns how many bytes of the range it changed, counted from the range's start.
    typealias Operation = @Sendable (Descriptor) throws(Errno) -> Int

    func write(
        _ reply: consuming Reply, _ number: UInt64, _ bytes: UnsafeRawBufferPointer, offset: Int, dropsSetIDs: Bool
    ) {
        do throws(Errno) {
            let handle = try openFiles.find(number)
            let lower = try lower(handle)
            if dropsSetIDs { try clearSetIDs(lower, reply.caller.thread) }
            guard let file = handle.inode.content else {
                return reply.written(try lower.writeForUser(bytes, at: offset))
            }
            noteChange(handle.inode)
            // This is the fast way when nothing has to be waited for: the request's own buffer is still valid.
            let range = Range(at: offset, count: bytes.count)
            if file.fill.isPresent(range) {
                try file.stored.becomeDirty()
                try file.stored.willWrite(file.fill.layout.granules(touching: range))
                let count = try lower.writeForUser(bytes, at: offset)
                try file.stored.didWrite(file.fill.layout.granules(touching: Range(at: offset, count: count)))
                return reply.written(count)
            }
            let copy = [UInt8](bytes)
            change(range, of: file, through: lower, PendingReply(reply)) { lower throws(Errno) in
                try copy.withBytes { bytes throws(Errno) in try lower.writeForUser(bytes, at: offset) }
            } then: { reply, result in
                switch result {
                case .success(let count): reply.written(count)
                case .failure(let error): reply.error(error)
                }
            }
        } catch { reply.error(error) }
    }

    /// Performs `operation`, which changes `range`, on an incomplete file. `then` gets the count of changed bytes.
    func change(
        _ range: Range<Int>, of file: IncompleteFile, through lower: Descriptor, _ reply: PendingReply,
        _ operation: @escaping Operation, then: @escaping @Sendable (consuming Reply, Result<Int, Errno>) -> Void
    ) {
        let layout = file.fill.layout
        let (covered, touched) = (layout.granules(coveredBy: range), layout.granules(touching: range))
        // Only the first and the last granule can be changed in part. There may be more granules in between than can be
        // looked at.
        let partial = [touched.first, touched.last].compactMap(\.self).first { granule in
            !covered.contains(granule) && !file.fill.isPresent(layout.bytes(of: granule..<granule + 1))
        }
        if let partial {
            let edge = layout.bytes(of: partial..<partial + 1)
            return whenResident(edge, of: file, reply) { [self] reply, error in
                if let error { return then(reply, .failure(Errno(error))) }
                change(range, of: file, through: lower, PendingReply(reply), operation, then: then)
            }
        }
        whenExclusive(covered, of: file, cancelFetches: true, reply) { [self] reply, error, waiter in
            if let error { return then(reply, .failure(Errno(error))) }
            var present = 0..<0
            defer { engine.endExclusiveWrite(waiter, of: file.fill, present: present) }
            do throws(Errno) {
                try file.stored.becomeDirty()
                try file.stored.willWrite(touched)
                let count = try operation(lower)
                let (end, changed) = Self.believable(count, of: range, layout, file.fill)
                if end == range.lowerBound && count > 0 { throw Errno(rawValue: ENOSPC) }
                try file.stored.didWrite(layout.granules(touching: range.lowerBound..<end))
                present = changed
                then(reply, .success(end - range.lowerBound))
            } catch { then(reply, .failure(error)) }
        }
    }

    /// The end up to which a change of `count` bytes may be reported, and the reserved granules that it made present.
    /// An absent granule that was changed only in part is not present, and will be filled from the remote.
    private static func believable(
        _ count: Int, of range: Range<Int>, _ layout: GranuleLayout, _ fill: FillFile
    ) -> (end: Int, Range<Int>) {
        let end = Range(at: range.lowerBound, count: count).upperBound
        let changed = layout.granules(coveredBy: range.lowerBound..<end)
        let last = layout.granules(touching: range.lowerBound..<end).last
        if let last, !changed.contains(last), !fill.isPresent(layout.bytes(of: last..<last + 1)) {
            return (max(range.lowerBound, last * layout.granuleSize), changed)
        }
        return (end, changed)
    }

    /// Cuts or extends an incomplete file.
    func truncate(
        _ inode: Inode, _ file: IncompleteFile, to size: Int, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, Errno?) -> Void
    ) {
        let layout = file.fill.layout
        if file.isReadOnly {
            if let reply = reply.take() { then(reply, Errno(rawValue: EPERM)) }
            return
        }
        if options.isStrict && size > 0 && !file.fill.isComplete && !file.fill.isRefused {
            // The digest of the whole content could not check the part that is left.
            return whenResident(0..<layout.limit, of: file, reply) { [self] reply, error in
                if let error { return then(reply, Errno(error)) }
                truncate(inode, file, to: size, PendingReply(reply), then: then)
            }
        }
        if size >= layout.limit {
            guard let reply = reply.take() else { return }
            do throws(Errno) {
                try file.stored.becomeDirty()
                try file.stored.truncate(to: size)
                then(reply, nil)
            } catch { then(reply, error) }
            return
        }
        let cut = size / layout.granuleSize..<Int.max
        whenExclusive(cut, of: file, cancelFetches: true, reply) { [self] reply, error, waiter in
            if let error { return then(reply, Errno(error)) }
            var failure: Errno?
            do throws(Errno) {
                try file.stored.becomeDirty()
                try file.stored.truncate(to: size)
                engine.truncated(file.fill, to: size)
            } catch { failure = error }
            engine.endExclusiveWrite(waiter, of: file.fill, present: 0..<0)
            then(reply, failure)
        }
    }

    // MARK: Copying

    /// How many bytes one COPY_FILE_RANGE of an incomplete file handles. The caller asks again for the rest.
    private static let copyStep = 8 << 20

    func copy(_ reply: consuming Reply, _ ranges: CopyRange) {
        let from: OpenFile
        let to: OpenFile
        do throws(Errno) { (from, to) = (try openFiles.find(ranges.source), try openFiles.find(ranges.target)) } catch {
            return reply.error(error)
        }
        let sourceFile = from.inode.content
        let targetFile = to.inode.content
        let count = sourceFile == nil && targetFile == nil ? ranges.count : min(ranges.count, Self.copyStep)
        let read = Range(at: ranges.sourceOffset, count: count)
        if let sourceFile, !sourceFile.fill.isPresent(read) {
            whenResident(read, of: sourceFile, PendingReply(reply)) { [self] reply, error in
                if let error { return reply.error(Errno(error)) }
                copy(reply, ranges)
            }
            return
        }
        do throws(Errno) {
            let (input, output) = (try lower(from), try lower(to))
            let operation: Operation = { output throws(Errno) in
                var (inOffset, outOffset) = (ranges.sourceOffset, ranges.targetOffset)
                return try OrdinaryUser.write { () throws(Errno) in
                    try check {
                        passhsm_copy_file_range(
                            input.raw, &inOffset, output.raw, &outOffset, count, ranges.flags)
                    }
                }
            }
            guard let targetFile else { return reply.written(try operation(output)) }
            noteChange(to.inode)
            let range = Range(at: ranges.targetOffset, count: count)
            change(range, of: targetFile, through: output, PendingReply(reply), operation) { reply, result in
                switch result {
                case .success(let count): reply.written(count)
                case .failure(let error): reply.error(error)
                }
            }
        } catch { reply.error(error) }
    }

    /// Takes setuid and setgid away for a write. The kernel leaves this to the daemon with FUSE_HANDLE_KILLPRIV_V2.
    ///
    /// - Parameter caller: the thread that waits for the write.
    func clearSetIDs(_ lower: Descriptor, _ caller: pid_t) throws(Errno) {
        let status = try lower.stat()
        let mode = status.st_mode
        var bits = mode & (S_ISUID | S_ISGID)
        // Without group execution setgid gives no rights to a user who executes the file, and members of the group may
        // keep it.
        if bits & S_ISGID != 0 && mode & S_IXGRP == 0 {
            let credentials = ThreadCredentials(of: caller)
            if credentials.groups.contains(status.st_gid) || credentials.has(ThreadCredentials.keepsSetIDs) {
                bits &= ~S_ISGID
            }
        }
        guard bits != 0 else { return }
        try lower.withProcPath { path throws(Errno) in _ = try check { chmod(path, mode & 0o7777 & ~bits) } }
    }
}
