import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// Brings pending changes to disk: data first, then bits. A file whose content is complete gets its final record.
extension StoredFile {
    /// The changes that one commit brings to disk: those that were pending when it began. Only these are synced.
    struct Commit {
        fileprivate let fills: [Int: UInt32]
        fileprivate let writes: GranuleSet
        fileprivate let isContentComplete: Bool
        fileprivate let isRecordStale: Bool

        fileprivate var hasData: Bool { !fills.isEmpty || !writes.isEmpty || isContentComplete }
    }

    /// Commits all changes that are pending now.
    package func commit() throws(Errno) { try end(beginCommit(), isSynced: false) }

    /// Does fsync(2) for a user: written bytes are durable, and a restart after a power cut knows it.
    package func sync() throws(Errno) {
        try commit()
        try durableLock.withLock { () throws(Errno) in try durable.residencyMap?.sync() }
        try lower.fsync()
    }

    /// Begins a commit. Later changes are left to the next commit. ``end(_:isSynced:)`` must follow.
    func beginCommit() -> Commit {
        pending.withLock { pending in
            defer {
                pending.isRecordStale = false
                pending.commits += 1
            }
            return Commit(
                fills: pending.fills, writes: pending.writes, isContentComplete: pending.isContentComplete,
                isRecordStale: pending.isRecordStale)
        }
    }

    /// Ends a commit.
    ///
    /// - Parameter isSynced: the caller has synced the whole lower file system since `commit` was begun.
    func end(_ commit: Commit, isSynced: Bool) throws(Errno) {
        defer { pending.withLock { $0.commits -= 1 } }
        // Another commit did the work while this one waited for its group: the file may be out of use, and changed
        // since.
        guard commit.hasData || commit.isRecordStale else { return }
        do throws(Errno) {
            let isSwapped = Failpoint.isOn("order")
            try Failpoint.reach("commit.sync")
            if commit.hasData && !isSwapped { try syncData(isSynced: isSynced) }
            try Failpoint.reach("commit.synced")
            try durableLock.withLock { () throws(Errno) in
                if durable.isFinished { return }
                if commit.isContentComplete { try finishLocked(commit) } else { try recordLocked(commit) }
                if isSwapped { try durable.residencyMap?.sync() }
            }
            if isSwapped {
                try Failpoint.reach("commit.unsynced")
                try syncData(isSynced: false)
            }
        } catch {
            pending.withLock { $0.isRecordStale = true }
            throw error
        }
        pending.withLock { pending in
            for granule in commit.fills.keys { pending.fills[granule] = nil }
            for run in commit.writes.runs() { pending.writes.remove(run) }
        }
    }

    private func syncData(isSynced: Bool) throws(Errno) {
        if pending.withLock(\.isDataLost) { throw Errno(rawValue: EIO) }
        do throws(Errno) {
            if isSynced { try lower.checkWriteback() } else { try lower.fdatasync() }
        } catch {
            pending.withLock { $0.isDataLost = true }
            throw error
        }
    }

    private func recordLocked(_ commit: Commit) throws(Errno) {
        if (!commit.fills.isEmpty || !commit.writes.isEmpty) && !durable.isRefused { try makeMapLocked() }
        try Failpoint.reach("commit.map")
        for run in Self.runs(of: commit.fills.keys.sorted()) {
            try durable.residencyMap?.update(run) { page, granule in
                // The granule was written locally since: the checksum would be of bytes that are no longer there.
                guard page.presence(of: granule) == .absent, let checksum = commit.fills[granule] else { return }
                page.set(.filled, of: granule, checksum: checksum)
            }
        }
        for run in commit.writes.runs() {
            try durable.residencyMap?.update(run) { page, granule in
                if page.presence(of: granule) != .absent { page.set(.written, of: granule) }
            }
        }
        var record = durable.record
        if durable.residencyMap != nil { record.state = .partial }
        try restoreModified()
        record.modified = modified
        try Failpoint.reach("commit.record")
        // A clean file's record is written even if it says nothing new, because fills have moved the change time.
        if record != durable.record || !record.flags.contains(.dirty) { try writeRecordLocked(record) }
        try Failpoint.reach("commit.recorded")
        // If the map loses fills, they are fetched again.
        if !record.flags.contains(.dirty) { durable.residencyMap?.dropDescriptor() }
    }

    private func finishLocked(_ commit: Commit) throws(Errno) {
        var record = durable.record
        // The checksum is optional: the file is valid without it.
        let checksum = record.flags.contains(.dirty) ? nil : try? contentChecksumLocked(commit)
        if !record.flags.contains(.dirty) {
            let size = try lower.stat().st_size
            if size != record.object.size {
                store.log.error("a filled file has \(size) bytes instead of \(record.object.size)")
                throw Errno(rawValue: EIO)
            }
        }
        try Failpoint.reach("finish.times")
        try restoreModified()
        record.state = .dual
        record.contentChecksum = checksum
        record.flags.subtract([.error, .stale, .lost])
        record.lastError = ""
        record.modified = modified
        try Failpoint.reach("finish.record")
        try writeRecordLocked(record)
        try Failpoint.reach("finish.sync")
        // The record must be durable before the map goes: until then the map alone knows the local changes.
        if record.flags.contains(.dirty) { try lower.fsync() }
        try Failpoint.reach("finish.forget")
        durable.residencyMap = nil
        durable.isFinished = true
        store.forgetResidency(of: handle)
    }

    /// CRC32C of the whole content, computed from those of its granules without reading content. Nil when one is not
    /// known.
    private func contentChecksumLocked(_ commit: Commit) throws(Errno) -> UInt32? {
        let layout = durable.record.layout
        var sum = ChecksumOfGranules(layout, notRecorded: commit.fills)
        try durable.residencyMap?.forEachPage { first, page in sum.append(page, from: first) }
        return sum.finish()
    }

    private static func runs(of sorted: [Int]) -> [Range<Int>] {
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
