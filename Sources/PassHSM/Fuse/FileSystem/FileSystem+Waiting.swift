import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem

/// Waits for fills without a thread. A wait ends when the fill is there, when it is given up, or at its deadline.
extension FileSystem {
    /// Asks the engine for `range`, and continues with `then` on a thread that may block. INTERRUPT ends the wait.
    func whenResident(
        _ range: Range<Int>, of file: IncompleteFile, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) {
        _ = ask(for: range, of: file, reply, nil, .demand, then)
    }

    /// As ``whenResident(_:of:_:then:)``. Returns the ticket under which the request waits.
    ///
    /// - Parameter handle: the handle of the read. Its FLUSH ends the wait too.
    func ask(
        for range: Range<Int>, of file: IncompleteFile, _ reply: PendingReply, _ handle: OpenFile?,
        _ priority: FillState.Priority, _ then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) -> FillEngine.Ticket {
        let user = Self.user(of: reply.caller)
        let number = reply.number
        logStep(number, file, "waits for bytes \(range)")
        let ticket = ticket(reply, handle) { [self] reply, error in
            logStep(number, file, error.map { "got no bytes: \($0.cause)" } ?? "has bytes \(range)")
            then(reply, error)
        }
        handle?.startedWaiting(ticket)
        engine.ensureResident(range, of: file.fill, priority: priority, user: user, ticket: ticket)
        return ticket
    }

    /// The user for whom content is fetched. Where the mount can have mapped owners the kernel does not tell the user
    /// (-1).
    private static func user(of caller: Caller?) -> FillEngine.User {
        guard let caller else { return 0 }
        return caller.user == .max ? CallerSyscall.user(of: caller.thread) ?? caller.user : caller.user
    }

    /// Asks the engine for a claim of `granules`; otherwise as ``whenResident(_:of:_:then:)``. After success `then` has
    /// to release the claim of the ticket that it gets.
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
        if let thread = reply.caller?.thread {
            reply.onInterrupt { [self] in interruptLater(ticket, of: thread) }
        }
        return ticket
    }

    func cancelLater(_ ticket: FillEngine.Ticket) {
        pool.run { [engine] in engine.cancel(ticket) }
    }

    /// INTERRUPT comes once, for any signal. If `thread` handles the signal or is stopped by it, the call goes on, as
    /// it would on a disk.
    private func interruptLater(_ ticket: FillEngine.Ticket, of thread: pid_t) {
        pool.run { [self] in
            interrupted.withLock { $0[ticket] = thread }
            cancelDying()
        }
    }

    /// Cancels the waits of interrupted threads that are about to end. The next call looks at the others again.
    func cancelDying() {
        for (ticket, thread) in interrupted.withLock({ $0 }) {
            let isDying = PendingSignals.end(thread)
            if isDying { engine.cancel(ticket) }
            if isDying || !engine.isWaiting(ticket) { interrupted.withLock { $0[ticket] = nil } }
        }
    }
}
