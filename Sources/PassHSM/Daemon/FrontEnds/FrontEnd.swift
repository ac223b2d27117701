import HSMControl
import HSMFanotify
import HSMFuse
import HSMStore
import HSMSystem

/// What the daemon needs of a front end, whichever it is. Safe on every thread.
protocol FrontEnd: Sendable {
    /// Below it lie the files that are named by paths.
    var top: Descriptor { get }
    /// What is recorded of a file (O_PATH).
    func state(of file: Descriptor) throws(Errno) -> StoredState
    /// What it has to say for `status`.
    func fill(_ report: inout StatusReport)
    /// Serves until the file system is unmounted, by whomever; then everything is on disk.
    func run()
    /// Fails every request that waits for a fill, now and for a few seconds.
    func drain()
    /// Ends the mount, whoever uses it.
    func stop()
    /// Makes a file (O_PATH) offline; the bytes that were freed. `goesOn` is asked now and then; false gives up.
    func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int
    /// Fills a file (O_PATH) whole; `progress` is told bytes, and false gives up, as a cancelled task does.
    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal)
    /// Forbids that a file (O_PATH) is released, or allows it again.
    func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal)
}

extension FuseMount: FrontEnd {
    func fill(_ report: inout StatusReport) {
        let status = status
        report.passthrough = .init(enabled: status.isPassthrough, reason: status.passthroughReason)
        report.requests = NamedCounts(status.requests)
        report.knownInodes = status.knownInodes
        report.openHandles = status.openHandles
        report.backingIDs = status.backingIDs
        report.incompleteFiles = status.incompleteFiles
    }
}

extension FanotifyMount: FrontEnd {
    func fill(_ report: inout StatusReport) {
        let status = status
        report.passthrough = .init(
            enabled: true, reason: "complete files are the lower file system's own; \(status.scope)")
        report.requests = NamedCounts(status.events)
        report.knownInodes = status.knownFiles
        report.incompleteFiles = status.incompleteFiles
    }
}
