import Glibc
import HSMCore
import HSMSystem

/// The facts about a file that `passhsm state` shows.
package struct StoredState: Sendable {
    /// S_IFREG, S_IFDIR and so on.
    package var type: mode_t
    /// The file's size now, in bytes.
    package var size: Int
    /// Nil for a local file, and for one whose record cannot be believed.
    package var record: Record?
    /// `local`, `dual`, `partial`, `offline`, or `unknown` when the record cannot be believed.
    package var state: String
    /// Byte ranges that can be read without the remote, ascending.
    package var presentRanges: [Range<Int>]
    /// The reason why the record cannot be believed.
    package var problem: String?

    /// The state of a file in use.
    package init(record: Record, present: GranuleSet, layout: GranuleLayout, size: Int, isComplete: Bool) {
        type = S_IFREG
        self.size = size
        self.record = record
        if isComplete {
            state = Record.State.dual.name
            presentRanges = size > 0 ? [0..<size] : []
            return
        }
        state =
            present.isEmpty && !record.flags.contains(.dirty) ? Record.State.offline.name : Record.State.partial.name
        presentRanges = present.runs().map { layout.bytes(of: $0) }
        // Bytes beyond the limit never were the remote's.
        if size > layout.limit {
            if let last = presentRanges.last, last.upperBound == layout.limit {
                presentRanges[presentRanges.count - 1] = last.lowerBound..<size
            } else {
                presentRanges.append(layout.limit..<size)
            }
        }
    }

    fileprivate init(type: mode_t, size: Int, state: String, problem: String? = nil) {
        (self.type, self.size, self.state, self.problem) = (type, size, state, problem)
        presentRanges = problem == nil && size > 0 && type == S_IFREG ? [0..<size] : []
    }
}

extension Store {
    /// The state on disk of the file that `file` is open on (O_PATH will do). It is the truth for a file that no daemon
    /// has in use.
    package func describe(_ file: Descriptor) throws(Errno) -> StoredState {
        let status = try file.stat()
        let type = status.st_mode & S_IFMT
        guard type == S_IFREG else { return StoredState(type: type, size: status.st_size, state: "local") }
        do throws(RecordError) {
            guard let record = try record(of: file) else {
                return StoredState(type: type, size: status.st_size, state: Record.State.local.name)
            }
            if record.isComplete {
                var result = StoredState(type: type, size: status.st_size, state: record.state.name)
                result.record = record
                return result
            }
            return StoredState(
                record: record, present: try presentGranules(record), layout: record.layout, size: status.st_size,
                isComplete: false)
        } catch {
            return StoredState(type: type, size: status.st_size, state: "unknown", problem: error.cause)
        }
    }
}
