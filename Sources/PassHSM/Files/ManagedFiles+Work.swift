import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// The work that clients of the control socket ask for: releasing files, pinning them, and filling them whole.
///
/// Called on threads that may block, with a descriptor (O_PATH) of a file in the lower tree.
extension ManagedFiles {
    /// Calls `body` with the file that `place` is open on.
    private func with<Result>(
        _ place: Descriptor, _ body: (File) throws(Refusal) -> Result
    ) throws(Refusal) -> Result {
        let file = try hold(place)
        defer { observer.drop(file) }
        return try body(file)
    }

    /// Holds the file that `place` is open on until ``FileObserver/drop(_:)``.
    private func hold(_ place: Descriptor) throws(Refusal) -> File {
        let file: File?
        do throws(Errno) { file = try observer.hold(place) } catch { throw Refusal("looking it up: \(error.text)") }
        guard let file else { throw Refusal("it is not a regular file") }
        return file
    }

    /// Makes a file offline when the remote still has it. Returns the number of bytes that were freed.
    ///
    /// - Parameter goesOn: asked about five times a second; false gives up.
    package func release(_ place: Descriptor, while goesOn: () -> Bool) throws(Refusal) -> Int {
        try with(place) { file throws(Refusal) in
            // The flush comes first: the remote may be slow, and the record is up to date after the flush.
            try Refusal.whenIdle { () throws(Refusal) in try flush(file) }
            let record = try store.releasable(place)
            try engine.source.confirm(record, on: pool, while: goesOn)
            let freed = try Refusal.whenIdle { () throws(Refusal) in
                try transition(file) { () throws(Refusal) in try releaseLocked(file, expecting: record) }
            }
            observer.forgetPages(of: file)
            log.debug("released it: \(freed) bytes", metadata: ["file": "\(file.handle.name)"])
            return freed
        }
    }

    private func flush(_ file: File) throws(Refusal) {
        if let refusal = obstacle(file) { throw refusal }
        try transition(file) { () throws(Refusal) in try flushLocked(file) }
    }

    private func releaseLocked(_ file: File, expecting expected: Record) throws(Refusal) -> Int {
        try flushLocked(file)
        let lower: Descriptor
        let changed: timespec
        do throws(Errno) {
            lower = try observer.open(file, O_RDWR)
            changed = try lower.stat().st_ctim
            // From here on an open waits for the transition lock. The store's release needs a lease from the kernel,
            // which grants it only while no user has the file open.
            try observer.willRelease(file, lower)
        } catch { throw Refusal("opening it: \(error.text)", isBusy: error.rawValue == ETXTBSY) }
        let record = try store.releasable(lower)
        let refusal = file.withState { state -> Refusal? in
            if let refusal = state.lifecycle.beginRelease(record.flags, modified: record.modified) { return refusal }
            state.beginOwnChange(at: changed)
            return nil
        }
        if let refusal { throw refusal }
        defer { noteRecord(file, lower) }
        return try store.release(lower, expecting: expected)
    }

    /// Takes over what the daemon has just written to the record of a file that is not active.
    private func noteRecord(_ file: File, _ lower: Descriptor) {
        let residence = store.residence(of: lower)
        let changed = try? lower.stat().st_ctim
        file.withState { state in
            state.lifecycle.note(residence)
            if let changed { state.endOwnChange(at: changed) }
        }
    }

    /// Forbids the release of a file, or allows it again.
    package func setPinned(_ isPinned: Bool, _ place: Descriptor) throws(Refusal) {
        try with(place) { file throws(Refusal) in
            try transition(file) { () throws(Refusal) in try setPinnedLocked(isPinned, file) }
        }
    }

    private func setPinnedLocked(_ isPinned: Bool, _ file: File) throws(Refusal) {
        do throws(Errno) {
            if let content = file.content { return try content.stored.setPinned(isPinned) }
        } catch { throw Refusal("writing its record: \(error.text)") }
        let lower: Descriptor
        let before: stat
        do throws(Errno) {
            lower = try observer.open(file, O_RDONLY)
            before = try lower.stat()
        } catch { throw Refusal("opening it: \(error.text)") }
        file.withState { $0.beginOwnChange(at: before.st_ctim) }
        defer { noteRecord(file, lower) }
        try store.setPinned(isPinned, lower)
        guard let after = try? lower.stat() else { return }
        file.withState { $0.lifecycle.noteRecordWritten(before: before, after: after) }
    }

    /// Fills a file whole. Every other user of the remote goes first. Returns when the file is complete, or the task is
    /// cancelled.
    ///
    /// - Parameter progress: gets the number of bytes that became present or were so already; false gives up.
    package func recall(_ place: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        let file = try hold(place)
        defer { observer.drop(file) }
        let leased: Lease<Observer>?
        do throws(Errno) { leased = try lease(file) } catch { throw Refusal("using it: \(error.text)") }
        guard let lease = leased else { return }
        let content = lease.content
        try await content.recall(by: engine, progress)
    }
}
