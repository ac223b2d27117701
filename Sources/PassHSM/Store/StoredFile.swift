import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// The store's side of one incomplete file: takes the engine's bytes, and keeps record and residency map true.
///
/// The order of a fill is: data, fdatasync, bits. A local change makes the file dirty, durably, before its first byte
/// changes. Safe on every thread; every method may block on the lower file system.
package final class StoredFile: FillDestination {
    /// What is not on disk yet.
    private struct Pending {
        /// Checksums of the granules that were filled and are not recorded.
        var fills: [Int: UInt32] = [:]
        /// Granules that were written locally and are recorded as volatile.
        var writes = GranuleSet()
        var isContentComplete = false
        var isRecordStale = false
        /// Calls of `commit` under way.
        var commits = 0
    }

    /// What is on disk.
    private struct Durable {
        var record: Record
        var sidecar: Sidecar?
        /// Granules that the residency map already has as written.
        var written = GranuleSet()
        var isFinished = false
    }

    package let store: Store
    /// The lower file, open for reading and writing.
    package let lower: Descriptor
    package let handle: FileHandle
    // Lock order: `durableLock`, then `pending`. Blocking I/O on record and residency map happens under `durableLock`;
    // `pending` is a leaf, and never held over a call.
    private let durableLock = Lock()
    private nonisolated(unsafe) var durable: Durable  // guarded by durableLock
    private let pending = Mutex(Pending())
    private let modifiedNow: Mutex<RemoteEntry.Time>
    private let dirty: Atomic<Bool>
    private let layout: GranuleLayout

    init(store: Store, lower: Descriptor, record: Record, sidecar: Sidecar?, written: GranuleSet) {
        self.store = store
        self.lower = lower
        handle = record.identity
        layout = record.layout
        durable = Durable(record: record, sidecar: sidecar, written: written)
        modifiedNow = Mutex(record.modified)
        dirty = Atomic(record.flags.contains(.dirty))
    }

    package var record: Record { durableLock.withLock { durable.record } }
    /// The modification time to show: fills move the lower file's own.
    package var modified: RemoteEntry.Time { modifiedNow.withLock { $0 } }
    package var isDirty: Bool { dirty.load(ordering: .acquiring) }
    /// The record says that the file is complete, durably; this object has done its work.
    package var isFinished: Bool { durableLock.withLock { durable.isFinished } }

    /// Something is not on disk yet: another object for the same file would not know of it.
    package var hasPending: Bool {
        if isFinished { return pending.withLock { $0.commits > 0 } }
        return pending.withLock { pending in
            !pending.fills.isEmpty || !pending.writes.isEmpty || pending.isRecordStale || pending.isContentComplete
                || pending.commits > 0
        }
    }

    /// Commits soon, with others.
    package func scheduleCommit() { store.committer.schedule(self) }

    // MARK: Fills

    package func fill(_ granules: Range<Int>, with bytes: UnsafeRawBufferPointer) throws(FillError) {
        let offset = granules.lowerBound * layout.granuleSize
        do throws(Errno) {
            try lower.write(bytes, at: offset)
        } catch {
            throw FillError(lowerErrno: error, "writing \(bytes.count) bytes at \(offset) of the lower file")
        }
        pending.withLock { pending in
            for granule in granules {
                let start = (granule - granules.lowerBound) * layout.granuleSize
                let part = bytes[start..<min(start + layout.granuleSize, bytes.count)]
                pending.fills[granule] = CRC32C.of(UnsafeRawBufferPointer(rebasing: part))
            }
        }
        scheduleCommit()
    }

    package func contentComplete() {
        let isNews = pending.withLock { pending in
            defer { pending.isContentComplete = true }
            return !pending.isContentComplete
        }
        if isNews { scheduleCommit() }
    }

    package func fillFailed(_ error: FillError) {
        store.log.error(
            "fill failed",
            metadata: [
                "code": "\(error.code.rawValue)", "reason": "\(error.reason.rawValue)", "cause": "\(error.cause)",
                "key": "\(durableLock.withLock { durable.record.object.key })",
            ])
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

    // MARK: Local changes

    /// Makes the file dirty, durably. To be called before the first byte changes.
    package func becomeDirty() throws(Errno) {
        if isDirty { return }
        try durableLock.withLock { () throws(Errno) in
            if durable.record.flags.contains(.dirty) { return }
            var record = durable.record
            record.flags.insert(.dirty)
            if !durable.isFinished {
                // The map is there, durably, before the record says that there are changes which only it can tell.
                try makeSidecarLocked()
                record.state = .partial
            }
            try writeRecordLocked(record)
            try lower.fsync()
        }
        dirty.store(true, ordering: .releasing)
    }

    /// `granules` were changed locally, in the lower file. When this returns, a restart of the daemon knows it; a power
    /// cut may still lose it, as it may lose any write that was not synced.
    package func didWrite(_ granules: Range<Int>) throws(Errno) {
        touch()
        try durableLock.withLock { () throws(Errno) in
            guard !durable.isFinished, !durable.written.contains(granules) else { return }
            try makeSidecarLocked()
            pending.withLock { pending in
                for granule in granules { pending.fills[granule] = nil }
                pending.writes.insert(granules)
            }
            try durable.sidecar?.update(granules) { page, granule in
                // What was durable before stays believable after a power cut: either content is right.
                let wasDurable = [.filled, .written].contains(page.presence(of: granule))
                page.set(wasDurable ? .written : .writtenVolatile, of: granule)
            }
            durable.written.insert(granules)
        }
        scheduleCommit()
    }

    /// The modification time is now, or what the user set.
    package func touch(_ time: RemoteEntry.Time? = nil) {
        modifiedNow.withLock { $0 = time ?? .now }
        pending.withLock { $0.isRecordStale = true }
        if time != nil { scheduleCommit() }
    }

    /// Cuts the lower file to `size` bytes, under the engine's claim of everything from there on; then what lies beyond
    /// is local, durably. The file must be dirty.
    package func truncate(to size: Int) throws(Errno) {
        try lower.truncate(to: size)
        touch()
        try durableLock.withLock { () throws(Errno) in
            guard size < durable.record.limit, !durable.isFinished else { return }
            var record = durable.record
            record.limit = size
            record.modified = modified
            try writeRecordLocked(record)
            // Before the file can grow again: its new end must never be taken for missing remote content, nor the reverse.
            try lower.fsync()
        }
    }

    // MARK: Durability

    /// Brings what is pending to disk: data first, then bits; a file whose content is complete gets its final record.
    ///
    /// - Parameter isSynced: the caller has synced the whole lower file system after this was scheduled.
    package func commit(isSynced: Bool = false) throws(Errno) {
        let work = pending.withLock { pending in
            let work = pending
            pending.fills = [:]
            pending.writes = GranuleSet()
            pending.isRecordStale = false
            pending.commits += 1
            return work
        }
        defer { pending.withLock { $0.commits -= 1 } }
        do throws(Errno) {
            let hasData = !work.fills.isEmpty || !work.writes.isEmpty || work.isContentComplete
            if hasData && !isSynced { try lower.fdatasync() }
            try durableLock.withLock { () throws(Errno) in
                if durable.isFinished { return }
                if work.isContentComplete { try finishLocked() } else { try recordLocked(work) }
            }
        } catch {
            pending.withLock { pending in
                pending.fills.merge(work.fills) { new, _ in new }
                for run in work.writes.runs() { pending.writes.insert(run) }
                pending.isRecordStale = pending.isRecordStale || work.isRecordStale
            }
            throw error
        }
    }

    /// fsync(2) as the user asked for it: what was written is durable, and known to be there after a power cut.
    package func sync() throws(Errno) {
        try commit()
        try durableLock.withLock { () throws(Errno) in try durable.sidecar?.sync() }
        try lower.fsync()
    }

    private func recordLocked(_ work: Pending) throws(Errno) {
        if !work.fills.isEmpty || !work.writes.isEmpty { try makeSidecarLocked() }
        for run in runs(of: work.fills.keys.sorted()) {
            try durable.sidecar?.update(run) { page, granule in
                // Written locally since: the checksum would be of bytes that are no longer there.
                guard page.presence(of: granule) == .absent, let checksum = work.fills[granule] else { return }
                page.set(.filled, of: granule, checksum: checksum)
            }
        }
        for run in work.writes.runs() {
            try durable.sidecar?.update(run) { page, granule in
                if page.presence(of: granule) != .absent { page.set(.written, of: granule) }
            }
        }
        var record = durable.record
        if durable.sidecar != nil { record.state = .partial }
        record.modified = modified
        try restoreModified()
        if record != durable.record { try writeRecordLocked(record) }
    }

    private func finishLocked() throws(Errno) {
        var record = durable.record
        if !record.flags.contains(.dirty) {
            let size = try lower.stat().st_size
            if size != record.object.size {
                store.log.error("a filled file has \(size) bytes instead of \(record.object.size)")
                throw Errno(rawValue: EIO)
            }
        }
        try restoreModified()
        record.state = .dual
        record.flags.subtract([.error, .stale, .lost])
        record.lastError = ""
        record.modified = modified
        try writeRecordLocked(record)
        // What the map alone knows must not go before the record that replaces it has come.
        if record.flags.contains(.dirty) { try lower.fsync() }
        durable.sidecar = nil
        durable.isFinished = true
        store.forgetResidency(of: handle)
    }

    private func makeSidecarLocked() throws(Errno) {
        if durable.sidecar != nil { return }
        durable.sidecar = try Sidecar.create(
            in: store.partial, name: handle.name, epoch: durable.record.epoch,
            granules: durable.record.layout.count, session: store.session)
    }

    private func writeRecordLocked(_ record: Record) throws(Errno) {
        try store.write(record, to: lower)
        durable.record = record
    }

    private func restoreModified() throws(Errno) {
        let time = modified
        try lower.setTimes(
            access: FileTime.omit, modification: timespec(tv_sec: time.seconds, tv_nsec: time.nanoseconds))
    }

    private func runs(of sorted: [Int]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        for granule in sorted {
            if let last = result.last, last.upperBound == granule {
                result[result.count - 1] = last.lowerBound..<granule + 1
            } else {
                result.append(granule..<granule + 1)
            }
        }
        return result
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
