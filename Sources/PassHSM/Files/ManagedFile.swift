import Glibc
import HSMStore
import HSMSystem

/// A file whose life ``ManagedFiles`` leads: a front end's object for it. There is never more than one for a file.
package protocol ManagedFile: AnyObject, Sendable {
    associatedtype State: ManagedState

    var handle: FileHandle { get }

    /// Calls `body` under the file's leaf lock: nothing is called in it and no other lock is taken.
    func withState<Result: ~Copyable, Failure>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result
}

extension ManagedFile {
    /// The content while the file is active.
    package var content: IncompleteFile? { withState { $0.lifecycle.content } }
}

/// What is kept of a file in memory, under its leaf lock.
package protocol ManagedState: Sendable {
    var lifecycle: FileLifecycle { get set }

    /// The daemon begins to work on the file, which was last changed at `lower`: its work moves the lower file's change time.
    mutating func beginOwnChange(at lower: timespec)

    /// The daemon's work is done, and left the change time at `lower`.
    mutating func endOwnChange(at lower: timespec)
}
