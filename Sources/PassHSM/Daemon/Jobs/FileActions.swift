import HSMControl
import HSMStore
import HSMSystem

/// Work on the files of a lower directory. A front end does it, or the store alone while nothing is mounted. Each call
/// takes a file's descriptor (O_PATH), and may block for as long as the remote does. Safe on every thread.
package protocol FileActions: Sendable {
    /// The directory that paths in requests start from.
    var top: Descriptor { get }
    /// Makes a file offline and returns the number of freed bytes. `goesOn` is asked now and then; false gives up.
    func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int
    /// Fills a file whole. `progress` gets numbers of bytes. The work stops when it returns false, or the task is
    /// cancelled.
    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal)
    /// Forbids the release of a file, or allows it again.
    func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal)
}

extension FileActions {
    /// - Parameter progress: gets numbers of freed or filled bytes. The work stops when it returns false, or the task
    ///   is cancelled.
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
