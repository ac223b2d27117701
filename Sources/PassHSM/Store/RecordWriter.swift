import Glibc
import HSMCore
import HSMSystem

/// Writes the records of many files, and syncs the entries that they need in the table of objects together. Until that
/// sync, the record of a new file contains its object, and any other file keeps its old record. So each record can be
/// believed after a power cut at any moment.
///
/// Used by one thread; nobody else changes the records meanwhile.
package final class RecordWriter {
    /// The largest count of records that wait for their entries; each holds a descriptor.
    private static let maxWaiting = 256
    /// A longer object may have no room beside other attributes on ext4, not even for a while.
    private static let maxInlineObject = 512

    private struct Waiting {
        let file: Descriptor
        /// The attribute's value until then.
        let value: [UInt8]
        let record: Record
        let reference: ObjectReference
        /// The change time that the file goes on showing; nil: this writing changes it.
        let shown: timespec?
    }

    private let store: Store
    private var waiting: [Waiting] = []

    package init(_ store: Store) { self.store = store }

    /// Sets the record of the file that `file` is open on (O_PATH will do). The record is as durable as the file.
    ///
    /// - Throws: also what ``flush()`` throws.
    package func write(_ record: Record, to file: Descriptor) throws(Errno) {
        let isKept = record.keepsObject || record.reference != nil
        guard !isKept, record.object.storedBytes.count <= Self.maxInlineObject else {
            try store.write(record, to: file)
            return
        }
        let value = record.encoded(nil)
        do throws(Errno) { try store.set(value, of: file) } catch {
            guard [ENOSPC, E2BIG, ERANGE].contains(error.rawValue) else { throw error }
            try store.write(record, to: file)
            return
        }
        try wait(
            Waiting(
                file: file, value: value, record: record, reference: try store.objects.append(record.object), shown: nil
            ))
    }

    /// Replaces the record of a file (O_PATH will do), at the latest by the next ``flush()``.
    ///
    /// - Parameter shown: the change time that the file goes on showing; nil: this writing changes it.
    /// - Throws: also what ``flush()`` throws.
    package func replace(with record: Record, of file: Descriptor, showing shown: timespec?) throws(Errno) {
        if record.keepsObject || record.reference != nil { return try set(record, of: file, showing: shown) }
        try wait(
            Waiting(
                file: file, value: try store.value(of: file), record: record,
                reference: try store.objects.append(record.object), shown: shown))
    }

    private func wait(_ one: Waiting) throws(Errno) {
        waiting.append(one)
        if waiting.count >= Self.maxWaiting { try flush() }
    }

    private func set(_ record: Record, of file: Descriptor, showing shown: timespec?) throws(Errno) {
        if let shown { try store.rewrite(record, to: file, showing: shown) } else { try store.write(record, to: file) }
    }

    /// Writes the records that wait for their objects' entries. Must be called at the end.
    package func flush() throws(Errno) {
        let all = waiting
        waiting = []
        for one in all {
            // The first sync covers all of them.
            try store.objects.sync(one.reference)
            do throws(Errno) {
                // Another writer has set the record since: its value is the right one.
                guard try store.value(of: one.file) == one.value else { continue }
                try Failpoint.reach("records.set")
                try set(one.record.at(one.reference), of: one.file, showing: one.shown)
            } catch {
                // The file is gone, or its owner may not write it and there is no privilege: only space is lost.
                guard [EACCES, EPERM, ENODATA].contains(error.rawValue) else { throw error }
            }
        }
    }
}
