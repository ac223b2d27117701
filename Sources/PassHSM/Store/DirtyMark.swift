import Glibc
import HSMCore
import HSMSystem

/// A complete file's size and times when an open for writing marked it dirty. They tell at the last close whether
/// anything was written.
package struct DirtyMark: Sendable {
    fileprivate let size: Int
    fileprivate let modified: RemoteEntry.Time
    fileprivate let changed: RemoteEntry.Time
    /// The change time that the mount showed before.
    fileprivate let shown: timespec

    init(_ status: stat, showing shown: timespec) {
        self.shown = shown
        size = status.st_size
        modified = RemoteEntry.Time(seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec)
        changed = RemoteEntry.Time(seconds: status.st_ctim.tv_sec, nanoseconds: status.st_ctim.tv_nsec)
    }

    /// The mark after a change of the record, which moves only the change time; nil when something was written.
    ///
    /// - Parameters:
    ///   - before: the file's attributes before that change.
    ///   - after: the file's attributes after it.
    package func kept(before: stat, after: stat) -> DirtyMark? {
        let (old, new) = (DirtyMark(before, showing: shown), DirtyMark(after, showing: shown))
        let isUnwritten = old.changed == changed && new.size == size && new.modified == modified
        return isUnwritten ? new : nil
    }
}

extension Store {
    /// Marks a complete file dirty, durably, before it can be changed. `lower` is open on the file, not with O_PATH.
    ///
    /// - Returns: the mark for ``unmarkDirty(_:_:)``. Nil when the file is local or was dirty already, or when it was
    ///   modified so recently that its times could not tell a change.
    /// - Throws: EIO when the record cannot be believed or does not say that the file is complete; errors of the write.
    package func markDirty(_ lower: Descriptor) throws(Errno) -> DirtyMark? {
        try mark(lower, isForGood: false)
    }

    private func mark(_ lower: Descriptor, isForGood: Bool) throws(Errno) -> DirtyMark? {
        guard var record = try believedRecord(of: lower), !record.flags.contains(.dirty) else { return nil }
        guard record.isComplete else { throw Errno(rawValue: EIO) }
        // The checksum is right again if the mark is taken back.
        if isForGood { record.contentChecksum = nil }
        let before = try lower.stat()
        let shown = record.changeTime(before)
        record.flags.insert(.dirty)
        try Failpoint.reach("mark.record")
        try rewrite(record, to: lower, showing: shown)
        try Failpoint.reach("mark.sync")
        try lower.fsync()
        let isRecent = RemoteEntry.Time.now.seconds - before.st_mtim.tv_sec < 2
        return isRecent ? nil : DirtyMark(try lower.stat(), showing: shown)
    }

    /// Marks a file that was changed, as ``markDirty(_:)`` does; the mark is not taken back.
    package func markDirtyForGood(_ lower: Descriptor) throws(Errno) -> DirtyMark? {
        _ = try mark(lower, isForGood: true)
        return nil
    }

    /// Takes the mark back if nothing was written since. Returns false if something was.
    package func unmarkDirty(_ lower: Descriptor, _ mark: DirtyMark) throws(Errno) -> Bool {
        let now = DirtyMark(try lower.stat(), showing: mark.shown)
        guard now.size == mark.size, now.modified == mark.modified, now.changed == mark.changed,
            var record = try believedRecord(of: lower), record.state == .dual
        else { return false }
        record.flags.remove(.dirty)
        try rewrite(record, to: lower, showing: mark.shown)
        return true
    }

    /// Whether a process has the file open for writing, or mapped for writing: fcntl(2) gives a lease for reading only
    /// when none has. True where there are no leases.
    ///
    /// - Parameter reader: open on the file for reading only.
    package func isOpenForWriting(_ reader: Descriptor) -> Bool {
        do throws(Errno) { try reader.tryReadLease() } catch { return true }
        return false
    }

    private func believedRecord(of lower: Descriptor) throws(Errno) -> Record? {
        do throws(RecordError) { return try record(of: lower) } catch {
            log.error("\(error.cause)")
            throw Errno(rawValue: EIO)
        }
    }
}
