import Glibc
import HSMCore
import HSMSystem

/// Writes the records of many new files, for an import: the entries that they need in the table of objects are synced
/// together. Until then a record has its object in itself, so that it can be believed after a power cut at any moment; only
/// then it gets short.
///
/// Used by one thread; nobody else changes the records meanwhile.
package final class RecordWriter {
    /// Records that wait for their entries; each holds a descriptor.
    private static let maxWaiting = 256
    /// Longer objects may have no room beside other attributes on ext4, not even for a while.
    private static let maxInlineObject = 512

    private struct Waiting {
        let file: Descriptor
        let value: [UInt8]
        let record: Record
        let reference: ObjectReference
    }

    private let store: Store
    private var waiting: [Waiting] = []

    package init(_ store: Store) { self.store = store }

    /// Sets the record of the file that `file` is open on (O_PATH will do). As durable as the file is.
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
        waiting.append(
            Waiting(file: file, value: value, record: record, reference: try store.objects.append(record.object)))
        if waiting.count >= Self.maxWaiting { try flush() }
    }

    /// Makes the records short whose objects are not in the table yet. To be called at the end.
    package func flush() throws(Errno) {
        let all = waiting
        waiting = []
        for one in all {
            // All of them at once, by the first.
            try store.objects.sync(one.reference)
            do throws(Errno) {
                // Written otherwise since: then it is as it is to be.
                guard try store.value(of: one.file) == one.value else { continue }
                try store.set(one.record.encoded(one.reference), of: one.file)
            } catch {
                // Without privilege, of a file that its owner may not write: only space is lost. Or gone meanwhile.
                guard [EACCES, EPERM, ENODATA].contains(error.rawValue) else { throw error }
            }
        }
    }
}
