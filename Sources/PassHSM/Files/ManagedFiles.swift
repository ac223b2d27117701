import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Logging

/// Leads the lives of a front end's files: makes them active while they are used, and finalizes, flushes, releases, recalls,
/// pins and refetches them. Safe on every thread; its methods may block on the lower file system.
///
/// A method whose name ends with `Locked` is called under the file's transition lock, which every other one takes.
package final class ManagedFiles<Observer: FileObserver>: Sendable {
    package typealias File = Observer.File

    package let store: Store
    package let engine: FillEngine
    /// Runs what may block on the lower file system.
    package let pool: BlockingPool
    package let observer: Observer
    let log: Logger
    private let isStrict: Bool
    /// Serialise what decides on a file, and what changes its record, sharded by file; held over blocking I/O on the lower
    /// file system. The outermost locks, and no two are held at once.
    private let transitions = (0..<256).map { _ in Lock() }

    /// - Parameter isStrict: nothing of a remote's content is seen before all of it was compared with its digest.
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

    /// As ``transition(_:_:)`` when the lock is free; nil, and nothing is done, when it is not.
    package func transitionIfFree<Result, Failure>(
        _ file: File, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result? {
        try lock(file).withLockIfFree(body)
    }

    // MARK: Activation

    /// A lease on an incomplete file, which becomes active if it was not; nil when the file is complete.
    ///
    /// - Parameter user: whose descriptor the file's is counted as; nil: it is the daemon's own work.
    /// - Throws: EIO where the record cannot be believed; the cause is logged. EMFILE where the user has too many descriptors.
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

    /// Loads the content, with a lease; nil when the file is complete.
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

    /// For reading alone where it is immutable or append-only: what is present of it can be read, and the flag taken away.
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

    /// To be called whenever a lease or a handle is gone, and after commits: deactivates a file that nobody uses. A complete
    /// one is then the kernel's own at its next open.
    package func deactivate(_ file: File) {
        let (unused, isKept) = file.withState { ($0.lifecycle.unusedContent, $0.lifecycle.isKeptActive) }
        guard let content = unused, content.fill.isIdle, !isKept || content.fill.isComplete else { return }
        tellCompletion(of: content)
        // Its commit comes back here.
        if content.stored.hasPending { return content.stored.scheduleCommit() }
        transition(file) { _ = deactivateLocked(file, content) }
        observer.noLongerUsed(file)
    }

    /// The engine knows that everything is there a moment before it says so.
    private func tellCompletion(of content: IncompleteFile) {
        if content.fill.isComplete && !content.isReadOnly { content.stored.contentComplete() }
    }

    /// Lets go of `content` when nothing needs it any more; a finished one does not need its leases. Whether it did.
    func deactivateLocked(_ file: File, _ content: IncompleteFile) -> Bool {
        tellCompletion(of: content)
        // Whoever uses it from now on keeps it, also when it is done before the last look: it may have left something to be
        // recorded.
        let uses = file.withState { $0.lifecycle.beginDeactivation() }
        // In this order: the record of a finished file is its last.
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

    /// Brings the record of a file whose content is all there to its final state, and the file out of activity, so that the
    /// record can say dirty before a change comes. Whether the file is complete on disk and no longer active.
    package func finalizeLocked(_ file: File, _ content: IncompleteFile) throws(Errno) -> Bool {
        // The engine may not have told the store yet that everything is there.
        content.stored.contentComplete()
        try content.stored.commit()
        _ = deactivateLocked(file, content)
        // Somebody else may have done so.
        return file.content == nil
    }

    /// Everything that is known of an inactive or idle file is on disk, and it is not active, when this returns.
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

    /// Once a second, for each file that is active or marked dirty: deactivates it when nobody uses it, as after a read-ahead
    /// that ended after the last handle. Looks again after one that was still mapped when its last handle was closed.
    package func sweep(_ file: File) {
        let (deactivates, unmarks) = file.withState { $0.lifecycle.sweep() }
        if deactivates { deactivate(file) }
        if unmarks { unmark(file) }
    }
}
