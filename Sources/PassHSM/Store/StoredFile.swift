import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// The store's part of one incomplete file: takes the engine's bytes, and keeps record and residency map true.
///
/// The order of a fill is: data, fdatasync, bits. A local change makes the file dirty, durably, before its first byte
/// changes. Safe on every thread; every method may block on the lower file system.
package final class StoredFile: FillDestination {
    /// Changes that are not on disk yet. A commit works on a copy, and takes its changes out when they are recorded.
    struct Pending {
        /// Checksums of granules that were filled and are not recorded.
        var fills: [Int: UInt32] = [:]
        /// Granules that were written locally and are recorded as volatile.
        var writes = GranuleSet()
        var isContentComplete = false
        var isRecordStale = false
        /// Count of commits under way.
        var commits = 0
        /// The lower file system failed to write data back. It reports that once, and may drop the pages: changes that
        /// are not recorded by then never will be.
        var isDataLost = false
    }

    /// State that is on disk.
    struct Durable {
        var record: Record
        var residencyMap: ResidencyMap?
        /// Takes fills that have to be checked first; made for the first of them. None of it is on disk.
        var staging: Staging?
        /// Granules that the residency map already has as written.
        var written = GranuleSet()
        var isFinished = false
        /// The content was found wrong as a whole: none of it is believed, and no more is taken.
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
    /// The lower file's modification time as this object left it; guarded by `writing`.
    private nonisolated(unsafe) var ownTime: timespec?
    private let modifiedNow: Mutex<RemoteEntry.Time>
    /// The change time to show.
    private let changedNow: Mutex<timespec>
    /// The dirty record is durable, not only in the page cache.
    private let isDirtyDurably = Atomic(false)
    private let layout: GranuleLayout
    /// Fills stay out of the lower file until the whole content was found right.
    private let isStaged: Bool

    /// - Parameters:
    ///   - written: granules that are written in the map.
    ///   - volatile: those among them that are not durable in the map.
    init(
        store: Store, lower: Descriptor, record: Record, residencyMap: ResidencyMap?, isStaged: Bool,
        written: GranuleSet = .init(), volatile: GranuleSet = .init()
    ) {
        self.store = store
        self.lower = lower
        handle = record.identity
        layout = record.layout
        self.isStaged = isStaged
        durable = Durable(record: record, residencyMap: residencyMap, written: written)
        pending = Mutex(Pending(writes: volatile))
        modifiedNow = Mutex(record.modified)
        let status = try? lower.stat()
        changedNow = Mutex(status.map(record.changeTime) ?? timespec())
        // A time that a user set differs from the time of a change, unless the user set it to the present. A fill whose
        // daemon was killed leaves such a time, too.
        let isFills = status.map { record.isModificationTime($0.st_mtim) || ($0.isJustWritten && !store.endedCleanly) }
        ownTime = isFills == false ? nil : status?.st_mtim
    }

    package var record: Record { durableLock.withLock { durable.record } }
    /// The modification time to show: fills move the lower file's own.
    package var modified: RemoteEntry.Time { modifiedNow.withLock { $0 } }
    /// The record says durably that the file is complete; this object's work is done.
    package var isFinished: Bool { durableLock.withLock { durable.isFinished } }

    /// Whether something is not on disk yet: another object for the same file would not know of it.
    package var hasPending: Bool {
        // A commit that is under way changes nothing in a finished file; an open must not take the file for incomplete.
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
            // One thread writes at a time: the kernel lets no two write to a file at once, and a thread that waits for
            // that spins, and takes the processor from the threads that fetch.
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
            // If this fails, the error is still in the log, and the reader got it.
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

    /// Makes the file dirty, durably. Must be called before the first byte changes.
    package func becomeDirty() throws(Errno) {
        // A commit between this and the change must not put back the old time.
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
                    // The record says that there are changes which only the map knows: so the map is durable first.
                    try makeMapLocked()
                    record.state = .partial
                }
                try Failpoint.reach("dirty.record")
                try writeRecordLocked(record)
            }
            try Failpoint.reach("dirty.sync")
            // The sync is needed even if the record said so before: an earlier sync may have failed, or not have
            // happened.
            try lower.fsync()
            try Failpoint.reach("dirty.synced")
            isDirtyDurably.store(true, ordering: .releasing)
        }
    }

    /// Must be called before `granules` are changed locally; the file is dirty. Present ones become written in the map:
    /// if the daemon ended before ``didWrite(_:)``, the checksum of the filled bytes would be wrong.
    package func willWrite(_ granules: Range<Int>) throws(Errno) {
        try durableLock.withLock { () throws(Errno) in
            guard !durable.isFinished, let residencyMap = durable.residencyMap, !durable.written.contains(granules)
            else {
                return
            }
            // They enter the map as written: a commit that is under way skips granules that are not absent there.
            let unrecorded = pending.withLock { pending in
                let filled = pending.fills.keys.filter(granules.contains)
                for granule in filled {
                    pending.fills[granule] = nil
                    pending.writes.insert(granule..<granule + 1)
                }
                return Set(filled)
            }
            var known = GranuleSet()
            try residencyMap.update(granules) { page, granule in
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

    /// Must be called after `granules` were changed locally, in the lower file. When this returns, a restarted daemon
    /// knows of the change. A power cut may still lose it, as any write that was not synced.
    package func didWrite(_ granules: Range<Int>) throws(Errno) {
        touch()
        try durableLock.withLock { () throws(Errno) in
            guard !durable.isFinished, !durable.written.contains(granules) else { return }
            try Failpoint.reach("write.map")
            try makeMapLocked()
            pending.withLock { pending in
                // `granules` may be many more than the filled ones, so the loop is over these.
                for granule in pending.fills.keys.filter(granules.contains) { pending.fills[granule] = nil }
                pending.writes.insert(granules)
            }
            try durable.residencyMap?.update(granules) { page, granule in
                // A durable granule stays believable after a power cut: the old content and the new are both right.
                let wasDurable = [.filled, .written].contains(page.presence(of: granule))
                page.set(wasDurable ? .written : .writtenVolatile, of: granule)
            }
            try Failpoint.reach("write.mapped")
            durable.written.insert(granules)
        }
        scheduleCommit()
    }

    /// Sets the modification time to show to now.
    package func touch() { setModified(.now) }

    /// Sets the modification time to show to the user's, which the lower file has already.
    package func touch(_ time: RemoteEntry.Time) throws(Errno) {
        setModified(time)
        // The commit that finished the file may have put back the old time.
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

    /// Cuts the lower file to `size` bytes; bytes from there on are then local, durably. The file must be dirty, and
    /// the caller holds the engine's exclusive write of everything from `size` on.
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
            // The sync comes before the file can grow again: its new end must never count as absent remote content, nor
            // the reverse.
            try lower.fsync()
        }
    }

    // MARK: Inside

    func makeMapLocked() throws(Errno) {
        if durable.residencyMap != nil { return }
        durable.residencyMap = try ResidencyMap.create(
            in: store.partial, name: handle.name, epoch: durable.record.epoch,
            granules: durable.record.layout.count, session: store.session)
    }

    func writeRecordLocked(_ record: Record) throws(Errno) {
        durable.record = try store.rewrite(record, to: lower, showing: changedNow.withLock { $0 })
    }

    /// Notes that a user has changed the file or its attributes: `time` is the change time to show.
    package func noteUserChange(at time: timespec) {
        changedNow.withLock { $0 = time }
        // Without another fill the record would still have the old time.
        setModified(modified)
    }

    /// Sets the lower file's modification time to the one to show, because fills move it. Commits do this too.
    package func restoreModified() throws(Errno) {
        try writing.withLock { () throws(Errno) in
            try movingTime { () throws(Errno) in
                let (now, wanted) = (try lower.stat().st_mtim, modified)
                // A needless call would move the change time.
                if now.tv_sec == wanted.seconds && now.tv_nsec == wanted.nanoseconds { return }
                try lower.setModified(wanted)
            }
        }
    }

    /// Performs `body`, which moves the lower file's modification time; `writing` is held. Where users reach the lower
    /// file, a time that a user has set before becomes the one to show.
    func movingTime<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        guard store.usersReachLower else { return try body() }
        let now = try lower.stat().st_mtim
        if ownTime.map({ $0.tv_sec == now.tv_sec && $0.tv_nsec == now.tv_nsec }) != true {
            setModified(RemoteEntry.Time(seconds: now.tv_sec, nanoseconds: now.tv_nsec))
        }
        // If the time cannot be read, the next one counts as this object's, and not as a user's.
        defer { ownTime = (try? lower.stat())?.st_mtim ?? now }
        return try body()
    }
}

extension stat {
    /// The last change was of the content, or set the modification time to the present.
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
    /// The time that the kernel gives to a file that changes now.
    package static var now: Self {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        return Self(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
    }
}

extension FillError {
    /// Maps an error of the lower file system to the nearest errno that both front ends can answer.
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
