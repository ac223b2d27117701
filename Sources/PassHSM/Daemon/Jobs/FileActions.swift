import HSMControl
import HSMStore
import HSMSystem

/// The work that can be done on the files of a lower directory: by a front end, or by the store alone while nothing is
/// mounted. Each call takes a file's descriptor (O_PATH), and may block for as long as the remote does. Safe on every thread.
package protocol FileActions: Sendable {
    /// Below it lie the files that are named by paths.
    var top: Descriptor { get }
    /// Makes a file offline; the bytes that were freed. `goesOn` is asked now and then; false gives up.
    func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int
    /// Fills a file whole; `progress` is told bytes, and false gives up, as a cancelled task does.
    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal)
    /// Forbids that a file is released, or allows it again.
    func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal)
}

extension FileActions {
    /// - Parameter progress: told bytes that were freed or filled; false gives up, as a cancelled task does.
    func perform(
        _ action: FileRequest.Action, on file: Descriptor, _ progress: (Int) -> Bool
    ) async throws(Refusal) {
        switch action {
        case .release: _ = progress(try release(file) { progress(0) })
        case .recall: try await recall(file, progress)
        case .pin: try setPinned(true, file)
        case .unpin: try setPinned(false, file)
        }
    }
}
