import Glibc
import HSMFiles
import HSMSystem
import Synchronization

/// A file that has pending events, or that still needs work.
final class TrackedFile: ManagedFile {
    let handle: FileHandle
    /// Events and work that hold it; guarded by the table's shard.
    nonisolated(unsafe) var holds = 0
    /// A leaf lock.
    private let state = Mutex(State())

    /// Users see the lower files' own times and reach the files that hold the records. So neither times nor records are
    /// kept.
    struct State: ManagedState {
        var lifecycle = FileLifecycle(nil)

        func beginOwnChange(at lower: timespec) {}
        func endOwnChange(at lower: timespec) {}
    }

    init(_ handle: FileHandle) { self.handle = handle }

    func withState<Result: ~Copyable, Failure>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try state.withLock { state throws(Failure) in try body(&state) }
    }
}
