import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// What the control socket asks for: giving up the content of files, pinning them, and filling them whole.
///
/// Called on threads that may block, with a descriptor (O_PATH) of a file in the lower tree.
extension EventHandler {
    /// Calls `body` with the node of `file`, which is in use meanwhile.
    private func withNode<Result>(
        of file: Descriptor, _ body: (Node) throws(Refusal) -> Result
    ) throws(Refusal) -> Result {
        let node = try useNode(of: file)
        defer { endUse(node) }
        return try body(node)
    }

    /// In use, until ``endUse(_:)``.
    private func useNode(of file: Descriptor) throws(Refusal) -> Node {
        do throws(Errno) {
            guard try file.stat().st_mode & S_IFMT == S_IFREG else { throw Errno(rawValue: EINVAL) }
            return try nodes.use(FileHandle(of: file))
        } catch {
            throw Refusal(error.rawValue == EINVAL ? "it is not a regular file" : "looking it up: \(error.text)")
        }
    }

    /// Makes a file offline when the remote still has it; the bytes that were freed.
    ///
    /// - Parameter goesOn: asked about five times a second; false gives up.
    func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        try withNode(of: file) { node throws(Refusal) in
            // First, because the remote may be slow, and the record is then up to date.
            try Refusal.whenIdle { () throws(Refusal) in
                try node.transition.withLock { () throws(Refusal) in try putDownLocked(node) }
            }
            let record = try store.releasable(file)
            try engine.source.confirm(record, on: pool, while: goesOn)
            return try Refusal.whenIdle { () throws(Refusal) in
                try node.transition.withLock { () throws(Refusal) in try releaseLocked(node, record) }
            }
        }
    }

    private func releaseLocked(_ node: Node, _ expected: Record) throws(Refusal) -> Int {
        try putDownLocked(node)
        let lower: Descriptor
        do throws(Errno) {
            lower = try store.tree.open(node.handle, O_RDWR)
            // Whoever opens it from here on waits for the lock, and nobody has it open when the lease is given.
            try group.unignore(lower)
        } catch { throw Refusal("opening it: \(error.text)", isBusy: error.rawValue == ETXTBSY) }
        return try store.release(lower, expecting: expected)
    }

    /// Under the transition lock: an incomplete file that only its caller uses has everything on disk, and is no longer in
    /// use, when this returns.
    private func putDownLocked(_ node: Node) throws(Refusal) {
        let (file, users) = node.state.withLock { ($0.file, $0.users) }
        guard let file else { return }
        if users > 1 || !file.fill.isIdle { throw Refusal("it is open, or being filled", isBusy: true) }
        if file.fill.isComplete { file.stored.contentComplete() }
        do throws(Errno) { try file.stored.commit() } catch { throw Refusal("writing its record: \(error.text)") }
        // Whoever comes now waits for the lock.
        guard file.stored.isFinished || !file.stored.hasPending else {
            throw Refusal("it is being filled", isBusy: true)
        }
        node.state.withLock { $0.file = nil }
    }

    /// Fills a file whole, behind whatever else wants the remote, and returns when it is done, or the task is cancelled.
    ///
    /// - Parameter progress: told the bytes that became present or were so already; false ends it.
    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        let node = try useNode(of: file)
        defer { endUse(node) }
        let used: IncompleteFile?
        do throws(Errno) {
            used = try node.transition.withLock { () throws(Errno) in try useLocked(node) }
        } catch { throw Refusal("using it: \(error.text)") }
        try await used?.recall(by: engine, progress)
    }

    /// Forbids that a file is released, or allows it again.
    func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        try withNode(of: file) { node throws(Refusal) in
            try node.transition.withLock { () throws(Refusal) in
                do throws(Errno) {
                    if let used = node.state.withLock(\.file) { return try used.stored.setPinned(isPinned) }
                } catch { throw Refusal("writing its record: \(error.text)") }
                let lower: Descriptor
                do throws(Errno) { lower = try store.tree.open(node.handle, O_RDONLY) } catch {
                    throw Refusal("opening it: \(error.text)")
                }
                try store.setPinned(isPinned, lower)
            }
        }
    }
}
