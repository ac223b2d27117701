import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// The store's side of one incomplete file: takes the engine's bytes, and keeps record and residency map true.
///
/// The order of a fill is: data, fdatasync, bits. A local change makes the file dirty, durably, before its first byte
/// changes. Safe on every thread; every method may block on the lower file system.
package final class StoredFile: FillDestination {
    /// What is not on disk yet. A commit works on a copy, and takes out what it has recorded when it has done so.
    struct Pending {
        /// Checksums of the granules that were filled and are not recorded.
        var fills: [Int: UInt32] = [:]
        /// Granules that were written locally and are recorded as volatile.
        var writes = GranuleSet()
        var isContentComplete = false
        var isRecordStale = false
        /// Commits under way.
        var commits = 0
        /// The lower file system failed to write data back. It reports that once, and may drop the pages: what is not
        /// recorded by then never will be.
        var isDataLost = false
    }

    /// What is on disk.
    struct Durable {
        var record: Record
        var sidecar: Sidecar?
        /// Where fills go that have to be checked first; made for the first of them. Nothing of it is on disk.
        var staging: Staging?
        /// Granules that the residency map already has as written.
        var written = GranuleSet()
        var isFinished = false
        /// The content was found wrong as a whole: nothing of it is believed, and nothing new is taken.
        var isRefused = false
    }

    package let store: Store
    /// The lower file, open for reading and writing.
    package let lower: Descriptor
    package let handle: FileHandle
    // Lock order: `durableLock`, then `pending`. Blocking I/O on record and residency map happens under `durableLock`;
    // `pending` is a leaf, and never held over a call.
    let durableLock = Lock()
    nonisolated(unsafe) var durable: Durable  // guarded by durableLock
    let pending: Mutex<Pending>
    /// Held over the writes of fills, and the setting of the modification time.
    let writing = Lock()
    /// The lower file's modification time as this object has left it; guarded by `writing`.
    private nonisolated(unsafe) var ownTime: timespec?
    private let modifiedNow: Mutex<RemoteEntry.Time>
    /// The change time to show.
    private let changedNow: Mutex<timespec>
    /// The record says dirty on disk, not only in the page cache.
    private let isDirtyDurably = Atomic(false)
    private let layout: GranuleLayout
    /// Fills are kept out of the lower file until the content was found right as a whole.
    private let isStaged: Bool

    /// - Parameters:
    ///   - written: granules that the map has as written.
    ///   - volatile: those of them that it does not have as durable.
    init(
        store: Store, lower: Descriptor, record: Record, sidecar: Sidecar?, isStaged: Bool,
        written: GranuleSet = .init(), volatile: GranuleSet = .init()
    ) {
        self.store = store
        self.lower = lower
        handle = record.identity
        layout = record.layout
        self.isStaged = isStaged
        durable = Durable(record: record, sidecar: sidecar, written: written)
        pending = Mutex(Pending(writes: volatile))
        modifiedNow = Mutex(record.modified)
        let status = try? lower.stat()
        changedNow = Mutex(status.map(record.changeTime) ?? timespec())
        // One that a user has set is not the one of a change, but where it was set to the present; and that is what a fill
        // leaves whose daemon was killed.
        let isFills = status.map { record.isModificationTime($0.st_mtim) || ($0.isJustWritten && !store.endedCleanly) }
        ownTime = isFills == false ? nil : status?.st_mtim
    }

    package var record: Record { durableLock.withLock { durable.record } }
    /// The modification time to show: fills move the lower file's own.
    package var modified: RemoteEntry.Time { modifiedNow.withLock { $0 } }
    /// The record says that the file is complete, durably; this object has done its work.
    package var isFinished: Bool { durableLock.withLock { durable.isFinished } }

    /// Something is not on disk yet: another object for the same file would not know of it.
    package var hasPending: Bool {
        // A commit that is still under way does nothing more to a finished file; an open must not take it for incomplete.
        if isFinished { return false }
        return pending.withLock { pending in
            if pending.commits > 0 { return true }
            if pending.isDataLost { return false }
            return !pending.fills.isEmpty || !pending.writes.isEmpty || pending.isRecordStale
                || pending.isContentComplete
        }
    }

    /// Commits soon, with others. Does not block.
    package func scheduleCommit() { store.committer.schedule(self) }

    // MARK: Fills

    package func fill(_ granules: Range<Int>, with bytes: UnsafeRawBufferPointer) throws(FillError) {
        let offset = granules.lowerBound * layout.granuleSize
        var checksums: [Int: UInt32] = [:]
        for granule in granules {
            let start = (granule - granules.lowerBound) * layout.granuleSize
            let part = bytes[start..<min(start + layout.granuleSize, bytes.count)]
            checksums[granule] = CRC32C.of(UnsafeRawBufferPointer(rebasing: part))
        }
        do throws(Errno) {
            let allowed = Failpoint.allowed("fill.write", of: bytes.count)
            if allowed < bytes.count {
                try lower.write(UnsafeRawBufferPointer(rebasing: bytes[..<allowed]), at: offset)
            }
            try Failpoint.reach("fill.write")
            if isStaged { return try staging().write(bytes, checksums, at: offset) }
            // One at a time: the kernel lets no two write to a file at once, and who waits for it there spins, and takes
            // the processor from those that fetch.
            try writing.withLock { () throws(Errno) in
                try movingTime { () throws(Errno) in
                    try OrdinaryUser.write { () throws(Errno) in
                        try lower.writeKeepingHoles(bytes, at: offset, unit: layout.granuleSize)
                    }
                }
            }
            try Failpoint.reach("fill.written")
        } catch {
            throw FillError(lowerErrno: error, "writing \(bytes.count) bytes at \(offset) of the lower file")
        }
        pending.withLock { $0.fills.merge(checksums) { _, new in new } }
        store.committer.waitForRoom(self)
        scheduleCommit()
    }

    private func staging() throws(Errno) -> Staging {
        try durableLock.withLock { () throws(Errno) in
            if let staging = durable.staging { return staging }
            let staging = try Staging(in: store.temporary, layout)
            durable.staging = staging
            return staging
        }
    }

    package func contentComplete() {
        let isNews = pending.withLock { pending in
            defer { pending.isContentComplete = true }
            return !pending.isContentComplete
        }
        if isNews { scheduleCommit() }
    }

    package func fillFailed(_ error: FillError) {
        log(error)
        durableLock.withLock {
            var record = durable.record
            record.flags.insert(.error)
            if error.reason == .remoteChanged { record.flags.insert(.stale) }
            if error.reason == .remoteGone { record.flags.insert(.lost) }
            record.lastError = "\(error.code.rawValue): \(error.cause)"
            if record == durable.record || durable.isFinished { return }
            // Without the note on disk the error is still in the log and was given to the reader.
            try? writeRecordLocked(record)
        }
    }

    func log(_ error: FillError) {
        store.log.error(
            "fill failed",
            metadata: [
                "code": "\(error.code.rawValue)", "reason": "\(error.reason.rawValue)", "cause": "\(error.cause)",
                "key": "\(durableLock.withLock { durable.record.object.key })",
            ])
    }

    // MARK: Local changes

    /// Makes the file dirty, durably. To be called before the first byte changes.
    package func becomeDirty() throws(Errno) {
        // A commit between this and the change must not put back the time of before.
        touch()
        if isDirtyDurably.load(ordering: .acquiring) { return }
        try durableLock.withLock { () throws(Errno) in
            if durable.isRefused { throw Errno(rawValue: EIO) }
            var record = durable.record
            if !record.flags.contains(.dirty) {
                record.flags.insert(.dirty)
                record.contentChecksum = nil
                if !durable.isFinished {
                    try Failpoint.reach("dirty.map")
                    // The map is there, durably, before the record says that there are changes which only it can tell.
                    try makeSidecarLocked()
                    record.state = .partial
                }
                try Failpoint.reach("dirty.record")
                try writeRecordLocked(record)
            }
            try Failpoint.reach("dirty.sync")
            // Also when the record has said so before: an earlier sync may have failed, or never have been reached.
            try lower.fsync()
            try Failpoint.reach("dirty.synced")
            isDirtyDurably.store(true, ordering: .releasing)
        }
    }

    /// `granules` are about to be changed locally; the file is dirty. Those that are present are known as written from now
    /// on: a checksum of what was filled would be wrong if the daemon ended before ``didWrite(_:)``.
    package func willWrite(_ granules: Range<Int>) throws(Errno) {
        try durableLock.withLock { () throws(Errno) in
            guard !durable.isFinished, let sidecar = durable.sidecar, !durable.written.contains(granules) else {
                return
            }
            // They come to the map as written: a commit that is under way skips what is not absent there.
            let unrecorded = pending.withLock { pending in
                let filled = pending.fills.keys.filter(granules.contains)
                for granule in filled {
                    pending.fills[granule] = nil
                    pending.writes.insert(granule..<granule + 1)
                }
                return Set(filled)
            }
            var known = GranuleSet()
            try sidecar.update(granules) { page, granule in
                switch page.presence(of: granule) {
                case .filled: page.set(.written, of: granule)
                case .absent where unrecorded.contains(granule): page.set(.writtenVolatile, of: granule)
                case .absent: return
                case .written, .writtenVolatile: break
                }
                known.insert(granule..<granule + 1)
            }
            for run in known.runs() { durable.written.insert(run) }
            if !unrecorded.isEmpty { scheduleCommit() }
            try Failpoint.reach("write.known")
        }
    }

    /// `granules` were changed locally, in the lower file. When this returns, a restart of the daemon knows it; a power
    /// cut may still lose it, as it may lose any write that was not synced.
    package func didWrite(_ granules: Range<Int>) throws(Errno) {
        touch()
        try durableLock.withLock { () throws(Errno) in
            guard !durable.isFinished, !durable.written.contains(granules) else { return }
            try Failpoint.reach("write.map")
            try makeSidecarLocked()
            pending.withLock { pending in
                // There may be many more granules than were filled.
                for granule in pending.fills.keys.filter(granules.contains) { pending.fills[granule] = nil }
                pending.writes.insert(granules)
            }
            try durable.sidecar?.update(granules) { page, granule in
                // What was durable before stays believable after a power cut: either content is right.
                let wasDurable = [.filled, .written].contains(page.presence(of: granule))
                page.set(wasDurable ? .written : .writtenVolatile, of: granule)
            }
            try Failpoint.reach("write.mapped")
            durable.written.insert(granules)
        }
        scheduleCommit()
    }

    /// The modification time is now.
    package func touch() { setModified(.now) }

    /// The modification time is what the user has set it to, in the lower file too.
    package func touch(_ time: RemoteEntry.Time) throws(Errno) {
        setModified(time)
        // The commit that finished the file may have put back the time of before.
        try durableLock.withLock { () throws(Errno) in if durable.isFinished { try restoreModified() } }
    }

    private func setModified(_ time: RemoteEntry.Time) {
        modifiedNow.withLock { $0 = time }
        let isNews = pending.withLock { pending in
            defer { pending.isRecordStale = true }
            return !pending.isRecordStale
        }
        if isNews { scheduleCommit() }
    }

    /// Cuts the lower file to `size` bytes, under the engine's claim of everything from there on; then what lies beyond
    /// is local, durably. The file must be dirty.
    package func truncate(to size: Int) throws(Errno) {
        try Failpoint.reach("truncate.cut")
        try lower.truncate(to: size)
        touch()
        try durableLock.withLock { () throws(Errno) in
            guard size < durable.record.limit, !durable.isFinished else { return }
            var record = durable.record
            record.limit = size
            record.modified = modified
            try Failpoint.reach("truncate.record")
            try writeRecordLocked(record)
            try Failpoint.reach("truncate.sync")
            // Before the file can grow again: its new end must never be taken for missing remote content, nor the reverse.
            try lower.fsync()
        }
    }

    // MARK: Inside

    func makeSidecarLocked() throws(Errno) {
        if durable.sidecar != nil { return }
        durable.sidecar = try Sidecar.create(
            in: store.partial, name: handle.name, epoch: durable.record.epoch,
            granules: durable.record.layout.count, session: store.session)
    }

    func writeRecordLocked(_ record: Record) throws(Errno) {
        durable.record = try store.rewrite(record, to: lower, showing: changedNow.withLock { $0 })
    }

    /// A user has changed the file or its attributes: that is the change time to show.
    package func noteUserChange(at time: timespec) {
        changedNow.withLock { $0 = time }
        // Without another fill the record would still tell the time before.
        setModified(modified)
    }

    /// Sets the lower file's modification time to the one to show, which commits do too: fills move it.
    package func restoreModified() throws(Errno) {
        try writing.withLock { () throws(Errno) in
            try movingTime { () throws(Errno) in
                let (now, wanted) = (try lower.stat().st_mtim, modified)
                // Not in vain: it moves the change time.
                if now.tv_sec == wanted.seconds && now.tv_nsec == wanted.nanoseconds { return }
                try lower.setModified(wanted)
            }
        }
    }

    /// Under `writing`: performs `body`, which moves the lower file's modification time. Where users set it themselves, one
    /// that they have set before is the one to show from now on.
    func movingTime<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        guard store.usersReachLower else { return try body() }
        let now = try lower.stat().st_mtim
        if ownTime.map({ $0.tv_sec == now.tv_sec && $0.tv_nsec == now.tv_nsec }) != true {
            setModified(RemoteEntry.Time(seconds: now.tv_sec, nanoseconds: now.tv_nsec))
        }
        // Unknown: the next time counts as this object's, rather than as a user's.
        defer { ownTime = (try? lower.stat())?.st_mtim ?? now }
        return try body()
    }
}

extension stat {
    /// The last change was one of the content, or of the modification time to the present.
    fileprivate var isJustWritten: Bool { st_mtim.tv_sec == st_ctim.tv_sec && st_mtim.tv_nsec == st_ctim.tv_nsec }
}

extension Descriptor {
    /// Sets the modification time of the lower file, and not its access time.
    func setModified(_ time: RemoteEntry.Time) throws(Errno) {
        try setTimes(
            access: FileTime.omit, modification: timespec(tv_sec: time.seconds, tv_nsec: time.nanoseconds))
    }
}

extension RemoteEntry.Time {
    /// The time that the kernel gives a file that changes now.
    package static var now: Self {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        return Self(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
    }
}

extension FillError {
    /// An error of the lower file system, as the nearest of the errnos that both front ends can answer.
    package init(lowerErrno error: Errno, _ what: String) {
        let code: Code =
            switch error.rawValue {
            case ENOSPC: .noSpace
            case EDQUOT: .quota
            case EPERM, EACCES, EROFS: .permission
            case ETXTBSY: .textBusy
            case EBUSY: .busy
            case EAGAIN: .again
            default: .io
            }
        self.init(code, .lowerFailed, "\(what): \(error.text)")
    }
}
