import HSMCore
import HSMSystem

/// Compares content with the digest that the remote gave for it.
extension StoredFile {
    package func checkContent() -> FillError? {
        let (object, isChanged, staging) = durableLock.withLock {
            (durable.record.object, durable.isLocal, durable.staging)
        }
        guard !isChanged, let expected = object.digest else {
            return staging == nil ? nil : Store.uncheckable
        }
        let found: RemoteDigest
        do throws(Errno) {
            found = try ContentDigest.of(size: object.size, expected.algorithm) { buffer, offset throws(Errno) in
                guard let staging else { return try lower.read(into: buffer, at: offset) }
                return try staging.read(over: lower, into: buffer, at: offset)
            }
        } catch {
            return FillError(lowerErrno: error, "reading what was filled")
        }
        if found == expected { return staging.flatMap(moveIntoPlace) }
        let error = FillError(.io, .wrongContent, "the content is \(found), and not \(expected) as the remote says")
        return refuse(error) ? error : nil
    }

    /// Moves content that was found right from `staging` to the lower file, where it is like any other fill.
    private func moveIntoPlace(_ staging: Staging) -> FillError? {
        do throws(Errno) {
            try Failpoint.reach("check.move")
            let checksums = try writing.withLock { () throws(Errno) in
                try movingTime { () throws(Errno) in try staging.move(into: lower) }
            }
            try Failpoint.reach("check.moved")
            pending.withLock { $0.fills.merge(checksums) { _, new in new } }
            durableLock.withLock { durable.staging = nil }
        } catch {
            return FillError(lowerErrno: error, "moving what was checked into the lower file")
        }
        scheduleCommit()
        return nil
    }

    /// Records that none of the content can be believed, so that it is fetched anew when the file is next taken into
    /// use. Local changes are refused until then. Returns false if there are local changes already.
    private func refuse(_ error: FillError) -> Bool {
        let isRefused = durableLock.withLock {
            if durable.isLocal { return false }
            durable.isRefused = true
            var record = durable.record
            record.state = .offline
            record.beginEpoch()
            record.flags.insert(.error)
            record.lastError = "\(error.code.rawValue): \(error.cause)"
            durable.residencyMap = nil
            durable.staging = nil
            // Without this record the map still says that everything is there, and it is compared again before it
            // counts as complete.
            try? writeRecordLocked(record)
            store.forgetResidency(of: handle)
            return true
        }
        if isRefused {
            pending.withLock { $0.fills = [:] }
            log(error)
        }
        return isRefused
    }
}

extension StoredFile.Durable {
    /// The file has local changes, which exist nowhere else.
    fileprivate var isLocal: Bool { record.flags.contains(.dirty) }
}
