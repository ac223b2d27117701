import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Logging

/// Manages a front end's files through their lives: makes them active while they are used, and finalizes, flushes,
/// releases, recalls, pins and refetches them. Safe on every thread; its methods may block on the lower file system.
///
/// The caller of a method with a name in `Locked` holds the file's transition lock. Every other method takes it.
package final class ManagedFiles<Observer: FileObserver>: Sendable {
    package typealias File = Observer.File

    package let store: Store
    package let engine: FillEngine
    /// Runs what may block on the lower file system.
    package let pool: BlockingPool
    package let observer: Observer
    let log: Logger
    private let isStrict: Bool
    /// Serialise the decisions on a file and the changes of its record, sharded by file. Held over blocking I/O on the
    /// lower file system. They are the outermost locks, and no thread holds two at once.
    private let transitions = (0..<256).map { _ in Lock() }

    /// - Parameter isStrict: users see a file's remote content only after all of it was compared with its digest.
    package init(
        store: Store, engine: FillEngine, observer: Observer, isStrict: Bool, pool: BlockingPool, log: Logger
    ) {
        self.store = store
        self.engine = engine
        self.observer = observer
        self.isStrict = isStrict
        self.pool = pool
        self.log = log
        store.afterCommit { [weak self] handle in
            guard let self, let file = self.observer.find(handle) else { return }
            self.deactivate(file)
        }
    }

    // MARK: The transition lock

    private func lock(_ file: File) -> Lock {
        transitions[Int(UInt(bitPattern: file.handle.hashValue) % UInt(transitions.count))]
    }

    /// Calls `body` under the file's transition lock.
    package func transition<Result: ~Copyable, Failure>(
        _ file: File, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try lock(file).withLock(body)
    }

    /// As ``transition(_:_:)`` when the lock is free. Otherwise does nothing and returns nil.
    package func transitionIfFree<Result, Failure>(
        _ file: File, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result? {
        try lock(file).withLockIfFree(body)
    }

    // MARK: Activation

    /// Returns a lease on an incomplete file, which becomes active if it was not; nil when the file is complete.
    ///
    /// - Parameter user: the user that the file's descriptor is counted for; nil: it is the daemon's own work.
    /// - Throws: EIO where the record cannot be believed; the cause is logged. EMFILE where the user has too many
    ///   descriptors.
    package func lease(_ file: File, for user: Observer.User? = nil) throws(Errno) -> Lease<Observer>? {
        if let content = file.withState({ $0.lifecycle.leaseActive() }) { return Lease(file, content, self) }
        return try transition(file) { () throws(Errno) in try leaseLocked(file, for: user) }
    }

    package func leaseLocked(_ file: File, for user: Observer.User? = nil) throws(Errno) -> Lease<Observer>? {
        switch file.withState({ $0.lifecycle.lease() }) {
        case .leased(let content): return Lease(file, content, self)
        case .complete: return nil
        case .refused(let error):
            log.error("\(error.cause)", metadata: ["file": "\(file.handle.name)"])
            throw Errno(rawValue: EIO)
        case .load:
            guard let content = try activateLocked(file, for: user) else { return nil }
            return Lease(file, content, self)
        }
    }

    /// Loads the content and counts a lease on it; nil when the file is complete.
    private func activateLocked(_ file: File, for user: Observer.User?) throws(Errno) -> IncompleteFile? {
        let (lower, isReadOnly) = try openToFill(file)
        let share = try observer.willActivate(file, lower, for: user)
        let changed = try lower.stat().st_ctim
        let content: IncompleteFile?
        do throws(FillError) {
            content = try store.use(lower, engine: engine, isStrict: isStrict, isReadOnly: isReadOnly)
        } catch {
            throw Errno(error)
        }
        guard let content else {
            let residence = store.residence(of: lower)
            file.withState { $0.lifecycle.note(residence) }
            return nil
        }
        file.withState { state in
            state.lifecycle.activate(content)
            state.beginOwnChange(at: changed)
        }
        observer.didActivate(file, share)
        return content
    }

    /// Opens the file for reading and writing, or for reading alone when it is immutable or append-only. The present
    /// bytes of such a file can be read, and its flag can be taken away.
    private func openToFill(_ file: File) throws(Errno) -> (Descriptor, isReadOnly: Bool) {
        do throws(Errno) { return (try observer.open(file, O_RDWR), false) } catch {
            guard error.rawValue == EPERM else { throw error }
            return (try observer.open(file, O_RDONLY), true)
        }
    }

    // MARK: Deactivation

    func endLease(on file: File) {
        file.withState { $0.lifecycle.endLease() }
        deactivate(file)
    }

    /// To be called whenever a lease or a handle has ended, and after commits: deactivates an unused file. The kernel
    /// can serve a complete file by itself from its next open on.
    package func deactivate(_ file: File) {
        let (unused, isKept) = file.withState { ($0.lifecycle.unusedContent, $0.lifecycle.isKeptActive) }
        guard let content = unused, content.fill.isIdle, !isKept || content.fill.isComplete else { return }
        tellCompletion(of: content)
        // The commit calls this method again.
        if content.stored.hasPending { return content.stored.scheduleCommit() }
        transition(file) { _ = deactivateLocked(file, content) }
        observer.noLongerUsed(file)
    }

    /// Tells the store that the content is complete: the engine knows it a moment before it tells the store.
    private func tellCompletion(of content: IncompleteFile) {
        if content.fill.isComplete && !content.isReadOnly { content.stored.contentComplete() }
    }

    /// Deactivates the file when nothing needs `content` any more. Leases do not keep a finished content. Returns
    /// whether it did.
    func deactivateLocked(_ file: File, _ content: IncompleteFile) -> Bool {
        tellCompletion(of: content)
        // A use from now on keeps the content, also when the use ends before the last look: it may have left something
        // to record.
        let uses = file.withState { $0.lifecycle.beginDeactivation() }
        // This order matters: once a file is finished, its record does not change any more.
        let isFinished = content.stored.isFinished
        let record = content.stored.record
        let facts = FileLifecycle.Facts(
            isFinished: isFinished, hasPending: content.stored.hasPending, isIdle: content.fill.isIdle)
        let changed = try? content.stored.lower.stat().st_ctim
        let isInactive = file.withState { state in
            guard state.lifecycle.deactivate(content, facts, since: uses, Residence(record)) else { return false }
            if let changed { state.endOwnChange(at: changed) }
            return true
        }
        if isInactive { observer.didDeactivate(file, content, isFinished: isFinished) }
        return isInactive
    }

    /// For a file with complete content: makes its record final and deactivates it, so that the record can say dirty
    /// before a change comes. Returns whether the file is complete on disk and no longer active.
    package func finalizeLocked(_ file: File, _ content: IncompleteFile) throws(Errno) -> Bool {
        // The engine may not have told the store yet that everything is there.
        content.stored.contentComplete()
        try content.stored.commit()
        _ = deactivateLocked(file, content)
        // Another thread may have deactivated it.
        return file.content == nil
    }

    /// When this returns, everything known about the file is on disk, and the file is not active. Throws when the file
    /// is in use, or its record cannot be written.
    func flushLocked(_ file: File) throws(Refusal) {
        guard let content = file.content else { return }
        if let refusal = obstacle(file) { throw refusal }
        tellCompletion(of: content)
        do throws(Errno) { try content.stored.commit() } catch {
            throw Refusal("writing its record: \(error.text)")
        }
        _ = deactivateLocked(file, content)
        if file.content != nil { throw Refusal("it is being filled", isBusy: true) }
    }

    func obstacle(_ file: File) -> Refusal? {
        let isIdle = file.content?.fill.isIdle
        return file.withState { $0.lifecycle.obstacle(isIdle: isIdle) }
    }

    /// To be called once a second for each file that is active or marked dirty. Deactivates an unused file, for
    /// instance after a read-ahead that ended after the last handle. Looks again at the mark of a file that was still
    /// mapped when its last handle was closed.
    package func sweep(_ file: File) {
        let (deactivates, unmarks) = file.withState { $0.lifecycle.sweep() }
        if deactivates { deactivate(file) }
        if unmarks { unmark(file) }
    }
}
