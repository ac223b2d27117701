import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Logging

/// Decides on events. Missing content is fetched before an access is allowed, and a file becomes dirty before it can be
/// changed.
///
/// The kernel does not report when an access that was allowed has happened. Two rules make the decisions safe all the
/// same. A file is filled whole before it is opened for writing or cut off, so no fill ever meets a local change. Every
/// decision on a file, and every change of its record, is made under the file's transition lock.
final class EventHandler: Sendable {
    typealias Files = ManagedFiles<TrackedFiles>

    let files: Files
    let tracked: TrackedFiles
    private let store: Store
    private let engine: FillEngine
    private let options: FanotifyMount.Options
    private let log: Logger
    /// Runs what may block on the lower file system.
    private let pool: BlockingPool
    private static let maxReadByRanges = 1000
    private static let large = 1 << 20

    init(
        store: Store, engine: FillEngine, group: EventGroup, options: FanotifyMount.Options, pool: BlockingPool,
        log: Logger
    ) {
        self.store = store
        self.engine = engine
        self.options = options
        self.pool = pool
        self.log = log
        tracked = TrackedFiles(tree: store.tree, group: group, ignoresNothing: options.ignoresNothing)
        files = Files(
            store: store, engine: engine, observer: tracked, isStrict: options.isStrict, pool: pool, log: log)
    }

    // MARK: Events

    /// The next thing to do with an event.
    private enum Step {
        case allow
        /// The event waits until the range (nil: the whole file) is present. Then it is examined again, or allowed.
        case fill(Range<Int>?)
        /// An incomplete file has to become active. That may take too long for the reader's thread.
        case activate
        /// The decision may take too long for the reader's thread: another thread makes it.
        case later
    }

    /// A step with the lease that it needs. The lease ends after the answer, and without the transition lock.
    private struct Decision: ~Copyable {
        let step: Step
        let lease: Lease<TrackedFiles>?
    }

    /// Answers `event`, now or later. Called on the reader's thread: does not block for long.
    ///
    /// - Parameter descriptor: open on the file.
    func handle(_ event: PendingEvent, _ descriptor: Descriptor) {
        let file = tracked.hold(event.handle)
        do throws(Errno) {
            let step = try files.transitionIfFree(file) { () throws(Errno) in
                try stepLocked(event, file, descriptor, mayBlock: false)
            }
            switch step {
            case .allow:
                event.answer(nil)
                tracked.drop(file)
            case .activate: pool.run { [self] in proceed(event, file, isIncomplete: true) }
            case .fill, .later, nil: pool.run { [self] in proceed(event, file) }
            }
        } catch {
            event.answer(error)
            tracked.drop(file)
        }
    }

    /// As ``handle(_:_:)`` for an event that an earlier daemon left: only the file handle is known. May block.
    func handleInherited(_ event: PendingEvent) {
        let file = tracked.hold(event.handle)
        pool.run { [self] in proceed(event, file) }
    }

    /// Takes the next step of an event; comes back after each wait. Drops `file`.
    ///
    /// - Parameter isIncomplete: the record has just said that the file is incomplete, so it is not read again.
    private func proceed(_ event: PendingEvent, _ file: TrackedFile, isIncomplete: Bool = false) {
        defer { tracked.drop(file) }
        do throws(Errno) {
            let decision = try files.transition(file) { () throws(Errno) in
                try decideLocked(event, file, isIncomplete: isIncomplete)
            }
            switch decision.step {
            case .allow: event.answer(nil)
            case .fill(let range):
                guard let lease = decision.lease else { throw Errno(rawValue: EIO) }
                fill(event, lease, range)
            case .activate, .later: throw Errno(rawValue: EIO)
            }
        } catch { event.answer(error) }
    }

    private func decideLocked(
        _ event: PendingEvent, _ file: TrackedFile, isIncomplete: Bool
    ) throws(Errno) -> Decision {
        var step = Step.activate
        if !isIncomplete || file.content != nil {
            step = try stepLocked(event, file, try tracked.open(file, O_RDONLY), mayBlock: true)
        }
        switch step {
        case .allow, .later: return Decision(step: step, lease: nil)
        case .activate, .fill: break
        }
        guard let lease = try files.leaseLocked(file) else {
            // It was complete after all.
            let step = try stepLocked(event, file, try tracked.open(file, O_RDONLY), mayBlock: true)
            return Decision(step: step, lease: nil)
        }
        if case .activate = step { step = fillStep(event, lease.content) }
        return Decision(step: step, lease: lease)
    }

    private func fill(_ event: PendingEvent, _ lease: consuming Lease<TrackedFiles>, _ range: Range<Int>?) {
        let (file, content) = (lease.file, lease.content)
        let held = HeldLease(lease)
        let waiter = engine.makeWaiter { [self] error in
            if let error, error.comesAtOnce {
                event.answer(Errno(error))
                return pool.run {
                    try? content.stored.restoreModified()
                    file.withState { $0.lifecycle.stopKeeping() }
                    held.end()
                }
            }
            // Users of this front end see the lower file's own times.
            try? content.stored.restoreModified()
            if let error {
                // The next reader starts anew.
                file.withState { $0.lifecycle.stopKeeping() }
                event.answer(Errno(error))
            } else if range != nil || isAllowed(event, file, content) {
                event.answer(nil)
            } else {
                // On a thread of the pool: this one may belong to a caller, which holds no lock but should not be
                // delayed.
                let file = tracked.hold(event.handle)
                return pool.run { [self] in
                    proceed(event, file)
                    held.end()
                }
            }
            held.end()
        }
        let user = CallerSyscall.user(of: event.thread) ?? 0
        if let range {
            // Each file that is kept active costs descriptors, so their number is limited.
            if tracked.count < Self.maxReadByRanges { file.withState { $0.lifecycle.keepActive() } }
            // The question also tells the read-ahead of this access.
            if engine.isResident(range, of: content.fill, user: user) { return engine.complete(waiter) }
            engine.ensureResident(range, of: content.fill, user: user, waiter: waiter)
        } else {
            engine.ensureResident(0..<content.fill.layout.limit, of: content.fill, user: user, waiter: waiter)
        }
    }

    /// Whether an event that waited for the whole of `content` needs nothing more. It can then be answered without
    /// waking another thread. False, at once, while another thread holds the transition lock.
    private func isAllowed(_ event: PendingEvent, _ file: TrackedFile, _ content: IncompleteFile) -> Bool {
        files.transitionIfFree(file) {
            file.content === content && content.fill.isComplete && !isFinishedFirst(content, for: event)
                && isHarmless(event, false)
        } ?? false
    }

    // MARK: Decisions

    /// Whether the record has to be final before the event is allowed. A large file's record would otherwise be written
    /// while the file is read, and tar(1) would report that the file has changed.
    private func isFinishedFirst(_ content: IncompleteFile, for event: PendingEvent) -> Bool {
        event.isOpen && content.fill.layout.limit > Self.large
    }

    private func stepLocked(
        _ event: PendingEvent, _ file: TrackedFile, _ descriptor: Descriptor, mayBlock: Bool
    ) throws(Errno) -> Step {
        if let content = file.content {
            if !content.fill.isComplete { return mayBlock ? fillStep(event, content) : .later }
            let isHarmless = isHarmless(event, mayBlock)
            if isHarmless && !isFinishedFirst(content, for: event) { return .allow }
            guard mayBlock else { return .later }
            do throws(Errno) {
                // Before a change the record has to be final: only then can it say dirty before the change comes.
                if try !files.finalizeLocked(file, content) { throw Errno(rawValue: EBUSY) }
            } catch { if !isHarmless { throw error } }
            if isHarmless { return .allow }
        }
        let record: Record?
        do throws(RecordError) { record = try store.record(of: descriptor) } catch {
            log.error("\(error.cause)", metadata: ["file": "\(file.handle.name)"])
            throw Errno(rawValue: EIO)
        }
        guard let record, record.state != .local else {
            tracked.ignore(.all, of: descriptor)
            return .allow
        }
        if record.isComplete { return try completeStep(event, file, descriptor, record, mayBlock) }
        return .activate
    }

    /// The step for a file with missing content.
    private func fillStep(_ event: PendingEvent, _ content: IncompleteFile) -> Step {
        if content.fill.isComplete && isHarmless(event, true) { return .allow }
        if let range = event.range {
            // A file that is cut off by its path is filled whole first: see the type. So is a file that is mapped or
            // cloned, because its user may see more bytes than the event names.
            guard options.fill == .read, !range.isEmpty,
                CallerSyscall(event.thread, mayBlock: true)?.readsRange ?? false
            else {
                return .fill(nil)
            }
            return .fill(range)
        }
        if options.fill == .read && isHarmless(event, true) { return .allow }
        return .fill(nil)
    }

    /// The step for a file that is complete on disk. The file becomes dirty before it can be changed.
    private func completeStep(
        _ event: PendingEvent, _ file: TrackedFile, _ descriptor: Descriptor, _ record: Record, _ mayBlock: Bool
    ) throws(Errno) -> Step {
        let isMarked = file.withState { $0.lifecycle.mark != nil }
        if record.flags.contains(.dirty) {
            tracked.ignore(isMarked ? .access : .all, of: descriptor)
            return .allow
        }
        // The kernel counts an opener as a writer before it raises the event, and refuses a lease on a file with a
        // writer. The refusal can be due to another writer too, or to a fill of this process that has just ended. So
        // the caller is examined as well.
        let mayChange = (!event.isOpen || store.isOpenForWriting(descriptor)) && !isHarmless(event, mayBlock)
        // Such a change was not seen before: the file was cut off by its path while accesses were ignored, or by an
        // open that only reads (O_TRUNC).
        let wasChanged = event.isOpen ? record.wasChangedUnseen(try descriptor.stat()) : false
        guard mayChange || wasChanged else {
            tracked.ignore(.access, of: descriptor)
            return .allow
        }
        guard mayBlock else { return .later }
        let isMarkable = try files.markDirtyLocked(file, descriptor, isForGood: wasChanged)
        tracked.ignore(isMarkable ? .access : .all, of: descriptor)
        return .allow
    }

    /// Whether the access changes nothing and, for an open, the new descriptor cannot either.
    private func isHarmless(_ event: PendingEvent, _ mayBlock: Bool) -> Bool {
        guard let syscall = CallerSyscall(event.thread, mayBlock: mayBlock) else { return false }
        return event.isOpen ? syscall.opensForReading : !syscall.mayTruncate
    }

    // MARK: Looking after files

    /// Once a second: deactivates unused files, and looks again after those that were opened for writing.
    func sweep() {
        for file in tracked.all(where: { $0.unusedContent != nil || $0.mark != nil }) { files.sweep(file) }
    }
}
