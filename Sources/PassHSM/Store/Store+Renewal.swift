import Glibc
import HSMCore
import HSMSystem

extension Store {
    /// Takes a clean incomplete file to another version of its remote object: nothing of it is present then.
    ///
    /// The order: record of the new version, offline and still stale, durable; size; record that is no longer stale. A
    /// crash in between leaves a stale file, of which nothing is believed.
    ///
    /// - Parameter lower: open for reading and writing; nobody may have the file in use.
    /// - Returns: false when there is nothing to be done: the file is complete, or dirty.
    package func renew(
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
            try write(record, to: lower)
            // Before a byte goes: what is not believed can show no zeros.
            try lower.fsync()
            forgetResidency(of: record.identity)
            try lower.truncate(to: 0)
            try lower.truncate(to: object.size)
            try lower.setModified(modified)
            try lower.fsync()
        }
        record.flags.subtract([.stale, .lost, .error])
        record.lastError = ""
        try write(record, to: lower)
        try lower.fsync()
        return true
    }
}
