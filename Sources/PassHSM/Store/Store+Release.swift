import Glibc
import HSMCore
import HSMSystem

/// The reason why a file is left as it is: one line for the user.
package struct Refusal: Error, Hashable, Sendable {
    package let cause: String
    /// A process uses the file; this may be over in a moment.
    package let isBusy: Bool

    package init(_ cause: String, isBusy: Bool = false) {
        self.cause = cause
        self.isBusy = isBusy
    }

    init(_ what: String, _ error: Errno) { self.init("\(what): \(error.text)") }
}

/// Gives up the local content of a file that the remote has too, and forbids that by a pin.
extension Store {
    /// The record of the file that `file` is open on (O_PATH will do), if the record allows to give up the content.
    ///
    /// - Throws: `Refusal` for a local, dirty or pinned file, and for one whose record cannot be believed.
    package func releasable(_ file: Descriptor) throws(Refusal) -> Record {
        let record = try managed(file)
        if record.flags.contains(.dirty) { throw Refusal("it has local changes") }
        if record.flags.contains(.pinned) { throw Refusal("it is pinned") }
        let status: stat
        do throws(Errno) { status = try file.stat() } catch { throw Refusal("examining it", error) }
        guard status.st_size == record.object.size, record.limit == record.object.size else {
            throw Refusal("it has \(status.st_size) bytes, and the remote \(record.object.size)")
        }
        // A write behind PassHSM's back leaves the record clean, but moves the time.
        let isRecorded = record.isModificationTime(status.st_mtim)
        if record.state == .dual && !isRecorded {
            throw Refusal("its modification time is not the one that was recorded: it may have been changed")
        }
        return record
    }

    private func managed(_ file: Descriptor) throws(Refusal) -> Record {
        let found: Record?
        do throws(RecordError) { found = try record(of: file) } catch { throw Refusal(error.cause) }
        guard let found, found.state != .local else { throw Refusal("it is local: the remote does not have it") }
        return found
    }

    /// Makes a file offline, and frees its blocks. No other process may have it open or mapped, and the daemon must not
    /// have it in use.
    ///
    /// The order: record `releasing`, durable; the hole; record `offline`, durable. A crash in between leaves a file of
    /// which nothing is believed. After an error before anything was freed, the old record is back. After a later error
    /// the file is offline.
    ///
    /// - Parameters:
    ///   - lower: open for reading and writing.
    ///   - expected: its record, for which ``RemoteStore/confirm(_:on:while:)`` was just called.
    /// - Returns: bytes that were freed.
    package func release(_ lower: Descriptor, expecting expected: Record) throws(Refusal) -> Int {
        do throws(Errno) { try lower.takeWriteLease() } catch {
            if error.rawValue == EAGAIN { throw Refusal("it is open or mapped", isBusy: true) }
            throw Refusal("finding out whether it is in use", error)
        }
        defer { lower.dropLease() }
        let record = try releasable(lower)
        guard record.object == expected.object, record.state == expected.state else {
            throw Refusal("it has changed meanwhile")
        }
        if record.state == .dual { try expectUnchanged(lower, record) }
        do throws(Errno) { return try giveUp(lower, record) } catch {
            throw Refusal("releasing it: \(error.text)", isBusy: error.rawValue == ETXTBSY)
        }
    }

    /// The change time may differ from the record's writing because of chmod(1), or because of a change after which
    /// size and modification time were put back. Then the content itself decides: a file that differs from the remote's
    /// becomes dirty.
    private func expectUnchanged(_ lower: Descriptor, _ record: Record) throws(Refusal) {
        let isRight: Bool?
        do throws(Errno) {
            guard record.written != nil, try !record.isOwnChange(lower.stat()) else { return }
            isRight = try hasContent(lower, record)
            if isRight == false { _ = try markDirtyForGood(lower) }
        } catch { throw Refusal("comparing its content", error) }
        // A FUSE mount sees every change.
        if isRight == true || (isRight == nil && !usersReachLower) { return }
        throw Refusal(
            isRight == false
                ? "it has local changes: its content is not what was recorded"
                : "its change time is not the one that was recorded: it may have been changed")
    }

    private func giveUp(_ lower: Descriptor, _ old: Record) throws(Errno) -> Int {
        let status = try lower.stat()
        let (size, shown) = (status.st_size, old.changeTime(status))
        if size == 0 { return 0 }
        if old.state == .offline, try lower.seekData(from: 0) == nil { return 0 }
        var record = old
        record.state = .releasing
        // The new epoch: if the residency map outlives this, it names content that is no longer here.
        record.beginEpoch()
        var before = 0
        var isBegun = false
        var failure: Errno?
        do throws(Errno) {
            try Failpoint.reach("release.record")
            try write(record, to: lower)
            try Failpoint.reach("release.sync")
            try lower.fsync()
            before = try lower.stat().st_blocks
            try Failpoint.reach("release.punch")
            // A truncate(2) by path that is already under way would next cut off a file of holes.
            if lower.isLeaseWanted { throw Errno(rawValue: ETXTBSY) }
            isBegun = true
            try freeContent(of: lower, size: size)
            try Failpoint.reach("release.punched")
        } catch {
            // Content that takes no blocks of its own cannot be proven to be still there.
            let isWhole = !isBegun || (before > 0 && (try? lower.stat().st_blocks) == before)
            if isWhole {
                // The old record becomes valid again.
                try rewrite(old, to: lower, showing: shown)
                try lower.fsync()
                throw error
            }
            failure = error
        }
        // From here on the file is offline, whatever else fails. Each step is tried, and the first error is reported.
        func attempt(_ step: () throws(Errno) -> Void) {
            do throws(Errno) { try step() } catch { failure = failure ?? error }
        }
        attempt { () throws(Errno) in try lower.setModified(record.modified) }
        record.state = .offline
        record.flags.subtract([.error, .stale, .lost])
        record.lastError = ""
        attempt { () throws(Errno) in
            try Failpoint.reach("release.offline")
            try rewrite(record, to: lower, showing: shown)
        }
        attempt { () throws(Errno) in
            try Failpoint.reach("release.offline.sync")
            try lower.fsync()
        }
        attempt { () throws(Errno) in
            try Failpoint.reach("release.forget")
            if old.state == .partial { forgetResidency(of: record.identity) }
        }
        if let failure { throw failure }
        return max(0, (before - (try lower.stat().st_blocks)) * 512)
    }

    /// Frees the blocks. XFS reserves blocks before it frees any, and refuses when there are none: it borrows some
    /// then.
    private func freeContent(of lower: Descriptor, size: Int) throws(Errno) {
        do throws(Errno) { try lower.freeContent(size: size) } catch {
            guard error.rawValue == ENOSPC else { throw error }
            try lower.withReserveLent { () throws(Errno) in try lower.freeContent(size: size) }
        }
    }

    /// Sets or clears the flag that forbids releasing, durably, on a file that no ``StoredFile`` stands for.
    ///
    /// - Parameter lower: not open with O_PATH.
    package func setPinned(_ isPinned: Bool, _ lower: Descriptor) throws(Refusal) {
        var record = try managed(lower)
        guard record.flags.contains(.pinned) != isPinned else { return }
        record.flags.formSymmetricDifference(.pinned)
        do throws(Errno) {
            try rewrite(record, to: lower, showing: record.changeTime(try lower.stat()))
            try lower.fsync()
        } catch { throw Refusal("writing its record", error) }
    }
}

extension StoredFile {
    /// Sets or clears the flag as ``Store/setPinned(_:_:)`` does, for the file that this object stands for.
    package func setPinned(_ isPinned: Bool) throws(Errno) {
        try durableLock.withLock { () throws(Errno) in
            var record = durable.record
            guard record.flags.contains(.pinned) != isPinned else { return }
            record.flags.formSymmetricDifference(.pinned)
            try writeRecordLocked(record)
            try lower.fsync()
        }
    }
}

extension RemoteStore {
    /// Waits for the remote to confirm that it still has the recorded version of a file. It asks nothing if nothing of
    /// the file is present.
    ///
    /// - Parameter goesOn: called about five times a second; false gives up.
    package func confirm(
        _ record: Record, on pool: BlockingPool, while goesOn: () -> Bool
    ) throws(Refusal) {
        if [.offline, .releasing].contains(record.state) { return }
        let error = pool.wait(while: goesOn) { () async -> FillError? in
            do throws(FillError) {
                let found = try await current(record.object.key).object
                if agrees(record.object, with: found, isMoved: false) { return nil }
                return FillError(
                    .io, .remoteChanged,
                    "\(record.object.key) has version \(found.version), not \(record.object.version)")
            } catch { return error }
        }
        if let error { throw Refusal(error.cause) }
    }
}
