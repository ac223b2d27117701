import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Work on files that the control socket asks for. Each call takes a descriptor (O_PATH) of a file in the lower tree.
/// It may block for as long as the remote does.
extension FuseMount {
    /// The top directory. The files that paths name lie below it.
    package var top: Descriptor { fileSystem.tree.root }

    /// The recorded state of a file. The attribute `passhsm.state` tells the present state instead.
    package func state(of file: Descriptor) throws(Errno) -> StoredState { try fileSystem.store.describe(file) }

    /// Makes a file offline if the remote still has it. Returns how many bytes were freed.
    ///
    /// - Parameter goesOn: called about five times a second. When it returns false, the release is given up.
    package func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        try fileSystem.files.release(file, while: goesOn)
    }

    /// Fills a whole file, with a lower priority than all other work that needs the remote. Returns when the fill is
    /// done or the task is cancelled.
    ///
    /// - Parameter progress: called with the count of bytes that became present or were so already. When it returns
    ///   false, the recall is given up.
    package func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        try await fileSystem.files.recall(file, progress)
    }

    /// Forbids that a file is released, or allows it again.
    package func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        try fileSystem.files.setPinned(isPinned, file)
    }
}
