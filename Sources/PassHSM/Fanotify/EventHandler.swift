import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Logging

/// Decides on events: what is not there is fetched before they are allowed, and a file is dirty before it can be changed.
///
/// Two rules make that safe although nobody tells when an access that was allowed has happened. A file is filled whole
/// before it is opened for writing, or cut off: so no fill ever meets a local change. And whatever decides on a file, or
/// changes its record, does so under its node's transition lock.
final class EventHandler: Sendable {
    let store: Store
    let engine: FillEngine
    let group: EventGroup
    let options: FanotifyMount.Options
    let log: Logger
    /// Runs what may block on the lower file system.
    let pool: BlockingPool
    let nodes = NodeTable()
    private static let mostReadByRanges = 1000
    private static let large = 1 << 20

    init(
        store: Store, engine: FillEngine, group: EventGroup, options: FanotifyMount.Options, pool: BlockingPool,
        log: Logger
    ) {
        self.store = store
        self.engine = engine
        self.group = group
        self.options = options
        self.pool = pool
        self.log = log
    }

    // MARK: Events

    /// What is to be done with an event next.
    private enum Step {
        case allow
        /// It waits until the range (nil: the whole file) is there; then it is looked at again, or allowed.
        case fill(IncompleteFile, Range<Int>?)
        /// More than may be done on the reader's thread: an incomplete file is to be taken into use.
        case use
        /// The same, whatever it is.
        case later
    }

    /// Answers `event`, now or later. Called on the reader's thread: does not block for long.
    ///
    /// - Parameter file: open on the file.
    func handle(_ event: WaitingEvent, _ file: Descriptor) {
        let node = nodes.use(event.handle)
        do throws(Errno) {
            let step = try node.transition.withLockIfFree { () throws(Errno) in
                try stepLocked(event, node, file, mayBlock: false)
            }
            switch step {
            case .allow:
                event.answer(nil)
                endUse(node)
            case .use: pool.run { [self] in proceed(event, node, isIncomplete: true) }
            case .fill, .later, nil: pool.run { [self] in proceed(event, node) }
            }
        } catch {
            event.answer(error)
            endUse(node)
        }
    }

    /// As ``handle(_:_:)`` for an event of which only the handle is known. May block.
    func handleInherited(_ event: WaitingEvent) {
        let node = nodes.use(event.handle)
        pool.run { [self] in proceed(event, node) }
    }

    /// Takes the next step of an event; comes back after each wait. Ends the use of `node`.
    ///
    /// - Parameter isIncomplete: so its record has said: it is read once less.
    private func proceed(_ event: WaitingEvent, _ node: Node, isIncomplete: Bool = false) {
        do throws(Errno) {
            let step = try node.transition.withLock { () throws(Errno) in
                if isIncomplete, node.state.withLock({ $0.file == nil }), let used = try useLocked(node) {
                    return fillStep(event, used)
                }
                return try stepLocked(event, node, try store.tree.open(node.handle, O_RDONLY), mayBlock: true)
            }
            switch step {
            case .allow: event.answer(nil)
            case .use, .later: throw Errno(rawValue: EIO)
            case .fill(let file, let range): return fill(event, node, file, range)
            }
        } catch {
            event.answer(error)
        }
        endUse(node)
    }

    private func fill(_ event: WaitingEvent, _ node: Node, _ file: IncompleteFile, _ range: Range<Int>?) {
        let ticket = engine.makeTicket { [self] error in
            if let error, error.comesAtOnce {
                event.answer(Errno(error))
                return pool.run { [self] in
                    try? file.stored.restoreModified()
                    node.state.withLock { $0.isReadByRanges = false }
                    endUse(node)
                }
            }
            // Here users see the lower file's own time.
            try? file.stored.restoreModified()
            if let error {
                // The next reader starts anew.
                node.state.withLock { $0.isReadByRanges = false }
                event.answer(Errno(error))
            } else if range != nil || isAllowed(event, node, file) {
                event.answer(nil)
            } else {
                // On a thread of its own: this one may be the caller's, who holds nothing but is on its way.
                return pool.run { [self] in proceed(event, node) }
            }
            endUse(node)
        }
        let user = CallerSyscall.user(of: event.thread) ?? 0
        if let range {
            // Many at once cost descriptors.
            if nodes.count < Self.mostReadByRanges { node.state.withLock { $0.isReadByRanges = true } }
            // Feeds the read-ahead.
            if engine.isResident(range, of: file.fill, user: user) { return engine.finish(ticket) }
            engine.ensureResident(range, of: file.fill, user: user, ticket: ticket)
        } else {
            engine.ensureResident(0..<file.fill.layout.limit, of: file.fill, user: user, ticket: ticket)
        }
    }

    /// Whether an event that waited for the whole of `file` needs nothing more: then its answer wakes no thread before. Does
    /// not wait for whoever decides on the file now.
    private func isAllowed(_ event: WaitingEvent, _ node: Node, _ file: IncompleteFile) -> Bool {
        node.transition.withLockIfFree {
            node.state.withLock { $0.file === file } && file.fill.isComplete && !isFinishedFirst(file, for: event)
                && isHarmless(event, false)
        } ?? false
    }

    // MARK: Decisions

    /// Of a large file the record would be written while it is read, and tar(1) find that it has changed.
    private func isFinishedFirst(_ used: IncompleteFile, for event: WaitingEvent) -> Bool {
        event.isOpen && used.fill.layout.limit > Self.large
    }

    private func stepLocked(
        _ event: WaitingEvent, _ node: Node, _ file: Descriptor, mayBlock: Bool
    ) throws(Errno) -> Step {
        if let used = node.state.withLock(\.file) {
            if !used.fill.isComplete { return mayBlock ? fillStep(event, used) : .later }
            let isHarmless = isHarmless(event, mayBlock)
            if isHarmless && !isFinishedFirst(used, for: event) { return .allow }
            guard mayBlock else { return .later }
            do throws(Errno) { try finishLocked(node, used) } catch { if !isHarmless { throw error } }
            if isHarmless { return .allow }
        }
        let record: Record?
        do throws(RecordError) { record = try store.record(of: file) } catch {
            log.error("\(error.cause)", metadata: ["file": "\(node.handle.name)"])
            throw Errno(rawValue: EIO)
        }
        guard let record, record.state != .local else {
            ignore(.all, of: file)
            return .allow
        }
        if record.isComplete { return try completeStep(event, node, file, record, mayBlock) }
        guard mayBlock else { return .use }
        guard let used = try useLocked(node) else { return .later }
        return fillStep(event, used)
    }

    /// A change needs a finished record, which can say dirty before the change comes.
    private func finishLocked(_ node: Node, _ file: IncompleteFile) throws(Errno) {
        file.stored.contentComplete()
        try file.stored.commit()
        settleLocked(node, file)
        if node.state.withLock({ $0.file != nil }) { throw Errno(rawValue: EBUSY) }
    }

    /// A file of which something is missing.
    private func fillStep(_ event: WaitingEvent, _ file: IncompleteFile) -> Step {
        if file.fill.isComplete && isHarmless(event, true) { return .allow }
        if let range = event.range {
            // Cut off by its path, it is filled first: see the type. What is mapped or cloned, because more may be seen of it
            // than is told.
            guard options.fill == .read, !range.isEmpty,
                CallerSyscall(event.thread, mayBlock: true)?.readsRange ?? false
            else {
                return .fill(file, nil)
            }
            return .fill(file, range)
        }
        if options.fill == .read && isHarmless(event, true) { return .allow }
        return .fill(file, nil)
    }

    /// A file that is complete on disk. It becomes dirty before it can be changed.
    private func completeStep(
        _ event: WaitingEvent, _ node: Node, _ file: Descriptor, _ record: Record, _ mayBlock: Bool
    ) throws(Errno) -> Step {
        let isMarked = node.state.withLock { $0.dirtyMark != nil }
        if record.flags.contains(.dirty) {
            ignore(isMarked ? .access : .all, of: file)
            return .allow
        }
        // The opener counts as one who writes before the event comes; a lease that it refuses tells. Others are refused it
        // too, and this process by a fill that is just over.
        let mayChange = (!event.isOpen || store.isOpenForWriting(file)) && !isHarmless(event, mayBlock)
        // Cut off by its path, while accesses were ignored, or by an open that only reads (O_TRUNC).
        let wasChanged = event.isOpen ? record.wasChangedUnseen(try file.stat()) : false
        guard mayChange || wasChanged else {
            ignore(.access, of: file)
            return .allow
        }
        guard mayBlock else { return .later }
        let mark = try wasChanged ? store.markDirtyForGood(file) : store.markDirty(file)
        node.state.withLock { $0.dirtyMark = mark }
        ignore(mark == nil ? .all : .access, of: file)
        return .allow
    }

    /// See ``EventGroup/ignore(_:of:)``.
    func ignore(_ ignored: EventGroup.Ignored, of file: Descriptor) {
        if !options.ignoresNothing { group.ignore(ignored, of: file) }
    }

    /// Nothing is changed by what the event tells, nor by what the descriptor of an open allows.
    private func isHarmless(_ event: WaitingEvent, _ mayBlock: Bool) -> Bool {
        guard let caller = CallerSyscall(event.thread, mayBlock: mayBlock) else { return false }
        return event.isOpen ? caller.opensForReading : !caller.mayTruncate
    }
}
