import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Work on files that the control socket asks for. Each call takes a descriptor (O_PATH) of a file in the lower tree, and may
/// block for as long as the remote does.
extension FuseMount {
    /// Below it lie the files that are named by paths.
    package var top: Descriptor { fileSystem.tree.root }

    /// What is recorded of a file; the attribute `passhsm.state` tells of the present moment.
    package func state(of file: Descriptor) throws(Errno) -> StoredState { try fileSystem.store.describe(file) }

    /// Makes a file offline when the remote still has it; the bytes that were freed.
    ///
    /// - Parameter goesOn: asked about five times a second; false gives up.
    package func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        try fileSystem.files.release(file, while: goesOn)
    }

    /// Fills a file whole, behind whatever else wants the remote, and returns when it is done, or the task is cancelled.
    ///
    /// - Parameter progress: told the bytes that became present or were so already; false gives up.
    package func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        try await fileSystem.files.recall(file, progress)
    }

    /// Forbids that a file is released, or allows it again.
    package func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        try fileSystem.files.setPinned(isPinned, file)
    }
}
