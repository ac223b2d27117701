import CFuse
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Taking incomplete files into use, and letting go of them.
extension FileSystem {
    /// The incomplete file of `inode`, taken into use if it was not, with one more user; nil when the file is complete.
    /// Every call that returns a file is ended by ``endUse(_:)``.
    ///
    /// - Parameter caller: whose descriptor the file's is counted as; nil: it is the daemon's own work.
    /// - Throws: EIO where the record cannot be believed; the cause is logged. EMFILE where the caller has too many.
    func use(_ inode: Inode, for caller: CallerUser? = nil) throws(Errno) -> IncompleteFile? {
        guard inode.isRegular else { return nil }
        let known = inode.state.withLock { state -> IncompleteFile? in
            if state.file != nil { state.addUser() }
            return state.file
        }
        if let known { return known }
        return try transition(inode) { () throws(Errno) in try useLocked(inode, caller) }
    }

    private func useLocked(_ inode: Inode, _ caller: CallerUser?) throws(Errno) -> IncompleteFile? {
        enum Known {
            case file(IncompleteFile), complete, load
            case unknown(RecordError)
        }
        let known = inode.state.withLock { state -> Known in
            if let file = state.file {
                state.addUser()
                return .file(file)
            }
            switch state.residence {
            case .local, .dual: return .complete
            case .unknown(let error): return .unknown(error)
            case .incomplete: return .load
            }
        }
        switch known {
        case .file(let file): return file
        case .complete: return nil
        case .unknown(let error):
            log.error("\(error.cause)", metadata: ["file": "\(inode.handle.name)"])
            throw Errno(rawValue: EIO)
        case .load:
            let (lower, isReadOnly) = try openToFill(inode)
            let share = try caller.flatMap { caller throws(Errno) in try shares.take(lower, for: caller.user) }
            let changed = try lower.stat().st_ctim
            let file: IncompleteFile?
            do throws(FillError) {
                file = try store.use(lower, engine: engine, isStrict: options.isStrict, isReadOnly: isReadOnly)
            } catch {
                throw Errno(error)
            }
            let residence = file == nil ? store.residence(of: lower) : nil
            inode.state.withLock { state in
                state.file = file
                if file != nil {
                    state.addUser()
                    if let share { state.shares.append(share) }
                    state.beginOwnChange(at: changed)
                }
                if let residence { state.residence = residence }
            }
            if file != nil { inodes.watch(inode) }
            return file
        }
    }

    /// For reading alone where it is immutable or append-only: what is present of it can be read, and the flag taken away.
    private func openToFill(_ inode: Inode) throws(Errno) -> (Descriptor, isReadOnly: Bool) {
        do throws(Errno) { return (try open(inode, O_RDWR), false) } catch {
            guard error.rawValue == EPERM else { throw error }
            return (try open(inode, O_RDONLY), true)
        }
    }

    func endUse(_ inode: Inode) {
        inode.state.withLock { $0.users -= 1 }
        letGo(inode)
    }

    /// Called whenever a user or a handle is gone: a file that nobody uses is put down, and a complete one changes over to
    /// passthrough at its next open.
    func letGo(_ inode: Inode) {
        let file = inode.state.withLock { state in
            state.users == 0 && state.cachedOpens == 0 ? state.file : nil
        }
        guard let file, file.fill.isIdle else { return }
        // The engine knows that everything is there a moment before it says so.
        if file.fill.isComplete && !file.isReadOnly { file.stored.contentComplete() }
        // Its commit comes back here.
        if file.stored.hasPending { return file.stored.scheduleCommit() }
        transition(inode) { settleLocked(inode, file) }
        forget(inode, 0)
    }

    /// Under the transition lock: lets go of `file` when nothing needs it any more; a finished one does not need its users.
    func settleLocked(_ inode: Inode, _ file: IncompleteFile) {
        if file.fill.isComplete && !file.isReadOnly { file.stored.contentComplete() }
        // Whoever uses it from now on keeps it, also when it is done before the last look.
        let uses = inode.state.withLock(\.uses)
        // In this order: the record of a finished file is its last.
        let isFinished = file.stored.isFinished
        let record = file.stored.record
        guard isFinished || (!file.stored.hasPending && file.fill.isIdle) else { return }
        let changed = try? file.stored.lower.stat().st_ctim
        var ended: [DescriptorShares.Share] = []
        inode.state.withLock { state in
            guard state.file === file, state.cachedOpens == 0,
                isFinished || (state.users == 0 && state.uses == uses)
            else { return }
            state.file = nil
            swap(&ended, &state.shares)
            // Of content that was found wrong the kernel has pages.
            if file.fill.isRefused { state.pages?.areStale = true }
            if let changed { state.endOwnChange(at: changed) }
            state.residence =
                record.isComplete
                ? .dual(record.flags)
                : .incomplete(record.state, record.flags, modified: record.modified)
        }
    }

    /// Once a second. Puts down every file that nobody uses: those whose last read-ahead ended after their last handle. Looks
    /// again after files that were still mapped when their last handle for writing was closed, and whether somebody else
    /// changed those of which the kernel has pages.
    func sweep() {
        for inode in inodes.takeWatched() {
            let (putsDown, unmarks, looks, lower) = inode.state.withLock { state in
                (
                    state.file != nil && state.users == 0 && state.cachedOpens == 0,
                    state.dirtyMark != nil && state.writers == 0, state.mayHaveLeftMapping,
                    state.isComplete ? state.anyShared : nil
                )
            }
            if putsDown { letGo(inode) }
            if unmarks { unmark(inode) }
            if looks { lookForMapping(inode) }
            if let lower { lookAtPages(inode, lower) }
            if inode.state.withLock(\.isWatched) { inodes.watch(inode) }
        }
    }

    // MARK: Waiting for fills

    /// Asks the engine for `range`, and continues with `then` on a thread that may block. INTERRUPT ends the wait.
    ///
    func whenResident(
        _ range: Range<Int>, of file: IncompleteFile, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) {
        _ = ask(for: range, of: file, reply, nil, .demand, then)
    }

    /// As ``whenResident(_:of:_:then:)``: the ticket under which it waits.
    ///
    /// - Parameter handle: the handle through which is read; its FLUSH ends the wait too.
    func ask(
        for range: Range<Int>, of file: IncompleteFile, _ reply: PendingReply, _ handle: OpenFile?,
        _ priority: FillState.Priority, _ then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) -> FillEngine.Ticket {
        let user = Self.user(of: reply.caller)
        let ticket = ticket(reply, handle, then)
        handle?.startedWaiting(ticket)
        engine.ensureResident(range, of: file.fill, priority: priority, user: user, ticket: ticket)
        return ticket
    }

    /// For whom something is fetched. Where the mount can have mapped owners the kernel does not tell (-1).
    private static func user(of caller: fuse_ctx?) -> FillEngine.User {
        guard let caller else { return 0 }
        return caller.uid == .max ? CallerSyscall.user(of: caller.pid) ?? caller.uid : caller.uid
    }

    /// Asks the engine for a claim of `granules`; otherwise as ``whenResident(_:of:_:then:)``. After success `then`
    /// releases the claim of the ticket that it is given.
    func whenClaimed(
        _ granules: Range<Int>, of file: IncompleteFile, cancelFetches: Bool, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?, FillEngine.Ticket) -> Void
    ) {
        let ticketBox = TicketBox()
        let ticket = ticket(reply, nil) { reply, error in then(reply, error, ticketBox.ticket) }
        ticketBox.ticket = ticket
        engine.claim(granules, of: file.fill, cancelFetches: cancelFetches, ticket: ticket)
    }

    private final class TicketBox: @unchecked Sendable {
        // Sendable: written before the request is made under the ticket, read only in its completion.
        var ticket: FillEngine.Ticket = 0
    }

    func ticket(
        _ reply: PendingReply, _ handle: OpenFile?, _ then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) -> FillEngine.Ticket {
        let box = TicketBox()
        let ticket = engine.makeTicket { error in
            handle?.stoppedWaiting(box.ticket)
            if let reply = reply.take() { then(reply, error) }
        }
        box.ticket = ticket
        let data = UnsafeMutableRawPointer(bitPattern: UInt(ticket))
        reply.onInterrupt(
            { request, data in
                guard let request, let user = fuse_req_userdata(request) else { return }
                let session = Unmanaged<FuseSession>.fromOpaque(user).takeUnretainedValue()
                // libfuse holds the request's lock here, which the reply may need: elsewhere, then.
                let thread = fuse_req_ctx(request).pointee.pid
                session.fileSystem.interruptLater(FillEngine.Ticket(UInt(bitPattern: data)), of: thread)
            }, data)
        return ticket
    }

    func cancelLater(_ ticket: FillEngine.Ticket) {
        pool.run { [engine] in engine.cancel(ticket) }
    }

    /// ``endUse(_:)`` after an answer that must not wait for it: whatever the inode's locks are held for, deadlines and kills
    /// are answered at once.
    func endUseLater(_ inode: Inode) { pool.run { [self] in endUse(inode) } }

    /// INTERRUPT comes for any signal, once: for one that `thread` handles, or that stops it, its call goes on as on a disk.
    private func interruptLater(_ ticket: FillEngine.Ticket, of thread: pid_t) {
        pool.run { [self] in
            interrupted.withLock { $0[ticket] = thread }
            cancelDying()
        }
    }

    /// Cancels the waits of interrupted threads that are about to end. Looks again at those that were not.
    func cancelDying() {
        for (ticket, thread) in interrupted.withLock({ $0 }) {
            let isDying = PendingSignals.end(thread)
            if isDying { engine.cancel(ticket) }
            if isDying || !engine.isWaiting(ticket) { interrupted.withLock { $0[ticket] = nil } }
        }
    }
}
