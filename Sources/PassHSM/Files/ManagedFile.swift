import Glibc
import HSMStore
import HSMSystem

/// A front end's object for a file that ``ManagedFiles`` manages. There is never more than one object for a file.
package protocol ManagedFile: AnyObject, Sendable {
    associatedtype State: ManagedState

    var handle: FileHandle { get }

    /// Calls `body` under the file's leaf lock. `body` must not take another lock or call out.
    func withState<Result: ~Copyable, Failure>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result
}

extension ManagedFile {
    /// The content while the file is active.
    package var content: IncompleteFile? { withState { $0.lifecycle.content } }
}

/// The state of a file in memory, under its leaf lock.
package protocol ManagedState: Sendable {
    var lifecycle: FileLifecycle { get set }

    /// The daemon begins to work on the file, which moves the lower file's change time. `lower` is that time before the
    /// work.
    mutating func beginOwnChange(at lower: timespec)

    /// The daemon's work is done. `lower` is the lower file's change time now.
    mutating func endOwnChange(at lower: timespec)
}
