import Glibc
import HSMCore
import HSMSystem

extension Store {
    /// Switches a clean incomplete file to another version of its remote object; nothing of the file is present then.
    ///
    /// The order: mark in `tmp`, durable; record of the new version, offline and still stale, durable; size; record
    /// that is no longer stale; mark removed. A crash in between leaves a stale file, of which nothing is believed. Its
    /// size may differ from the record's until ``endRefetch(_:)``.
    ///
    /// - Parameter lower: open for reading and writing; the daemon must not have the file in use.
    /// - Returns: false when there is nothing to do: the file is complete, or dirty.
    package func refetch(
        _ lower: Descriptor, _ object: RemoteObject, modified: RemoteEntry.Time
    ) throws(Errno) -> Bool {
        let old: Record?
        do throws(RecordError) { old = try record(of: lower) } catch { throw Errno(rawValue: EIO) }
        guard var record = old, !record.isComplete, !record.flags.contains(.dirty) else { return false }
        let isOther = record.object.version != object.version || record.object.size != object.size
        let size = try lower.stat().st_size
        if isOther || size != object.size {
            record.object = object
            record.forgetContent()
            record.modified = modified
            (record.changed, record.written) = (nil, nil)
            record.flags.insert(.stale)
            try markRefetch(record.identity)
            try write(record, to: lower)
            // The record comes before the first byte goes: a file of which nothing is believed shows no zeros.
            try lower.fsync()
            forgetResidency(of: record.identity)
            try Failpoint.reach("refetch.recorded")
            try prepareForRefetch(lower, record)
        }
        try endRefetch(of: lower, record)
        return true
    }

    private func markRefetch(_ identity: FileHandle) throws(Errno) {
        do throws(Errno) { _ = try temporary.makeFile(Array(identity.name.utf8), mode: 0o600) } catch {
            if error.rawValue != EEXIST { throw error }
        }
        try temporary.fsync()
    }

    private func prepareForRefetch(_ lower: Descriptor, _ record: Record) throws(Errno) {
        try lower.truncate(to: 0)
        try Failpoint.reach("refetch.cut")
        try lower.truncate(to: record.object.size)
        try lower.setModified(record.modified)
        try Failpoint.reach("refetch.sized")
        try lower.fsync()
    }

    private func endRefetch(of lower: Descriptor, _ old: Record) throws(Errno) {
        var record = old
        record.flags.subtract([.stale, .lost, .error])
        record.lastError = ""
        try write(record, to: lower)
        try Failpoint.reach("refetch.done")
        try lower.fsync()
        try? temporary.unlink(Array(record.identity.name.utf8))
    }

    /// Ends a refetch during which a daemon was killed, when the store is opened for use: programs would see the wrong
    /// size.
    ///
    /// - Parameter name: of a file in `tmp`.
    /// - Throws: when the mark must stay.
    func endRefetch(_ name: [UInt8]) throws(Errno) {
        guard let handle = FileHandle(name: String(decoding: name, as: UTF8.self)), tree.opensHandles else { return }
        let lower: Descriptor
        do throws(Errno) { lower = try tree.open(handle, O_RDWR) } catch {
            if error.rawValue == ESTALE { return }
            throw error
        }
        // With any other record the refetch had not begun, or was over.
        guard let record = (try? record(of: lower)) ?? nil, record.state == .offline, record.flags.contains(.stale),
            !record.flags.contains(.dirty)
        else { return }
        if try lower.stat().st_size != record.object.size { try prepareForRefetch(lower, record) }
        try endRefetch(of: lower, record)
    }
}
