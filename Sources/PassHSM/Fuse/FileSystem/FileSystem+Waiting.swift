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

    /// As ``whenResident(_:of:_:then:)``. Returns the waiter by which the request waits.
    ///
    /// - Parameter handle: the handle of the read. Its FLUSH ends the wait too.
    func ask(
        for range: Range<Int>, of file: IncompleteFile, _ reply: PendingReply, _ handle: OpenFile?,
        _ priority: FillState.Priority, _ then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) -> FillEngine.Waiter {
        let user = Self.user(of: reply.caller)
        let number = reply.number
        logStep(number, file, "waits for bytes \(range)")
        let waiter = waiter(reply, handle) { [self] reply, error in
            logStep(number, file, error.map { "got no bytes: \($0.cause)" } ?? "has bytes \(range)")
            then(reply, error)
        }
        handle?.startedWaiting(waiter)
        engine.ensureResident(range, of: file.fill, priority: priority, user: user, waiter: waiter)
        return waiter
    }

    /// The user for whom content is fetched. Where the mount can have mapped owners the kernel does not tell the user
    /// (-1).
    private static func user(of caller: Caller?) -> FillEngine.User {
        guard let caller else { return 0 }
        return caller.user == .max ? CallerSyscall.user(of: caller.thread) ?? caller.user : caller.user
    }

    /// Asks the engine for an exclusive write of `granules`; otherwise as ``whenResident(_:of:_:then:)``. After success
    /// `then` has to end the exclusive write of the waiter that it gets.
    func whenExclusive(
        _ granules: Range<Int>, of file: IncompleteFile, cancelFetches: Bool, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?, FillEngine.Waiter) -> Void
    ) {
        let waiterBox = WaiterBox()
        let waiter = waiter(reply, nil) { reply, error in then(reply, error, waiterBox.waiter) }
        waiterBox.waiter = waiter
        engine.beginExclusiveWrite(granules, of: file.fill, cancelFetches: cancelFetches, waiter: waiter)
    }

    private final class WaiterBox: @unchecked Sendable {
        // Sendable: written before the request is made by the waiter, read only in its completion.
        var waiter: FillEngine.Waiter = 0
    }

    func waiter(
        _ reply: PendingReply, _ handle: OpenFile?, _ then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) -> FillEngine.Waiter {
        let box = WaiterBox()
        let waiter = engine.makeWaiter { error in
            handle?.stoppedWaiting(box.waiter)
            if let reply = reply.take() { then(reply, error) }
        }
        box.waiter = waiter
        if let thread = reply.caller?.thread {
            reply.onInterrupt { [self] in interruptLater(waiter, of: thread) }
        }
        return waiter
    }

    func cancelLater(_ waiter: FillEngine.Waiter) {
        pool.run { [engine] in engine.cancel(waiter) }
    }

    /// INTERRUPT comes once, for any signal. If `thread` handles the signal or is stopped by it, the call goes on, as
    /// it would on a disk.
    private func interruptLater(_ waiter: FillEngine.Waiter, of thread: pid_t) {
        pool.run { [self] in
            interrupted.withLock { $0[waiter] = thread }
            cancelDying()
        }
    }

    /// Cancels the waits of interrupted threads that are about to end. The next call looks at the others again.
    func cancelDying() {
        for (waiter, thread) in interrupted.withLock({ $0 }) {
            let isDying = PendingSignals.end(thread)
            if isDying { engine.cancel(waiter) }
            if isDying || !engine.isWaiting(waiter) { interrupted.withLock { $0[waiter] = nil } }
        }
    }
}
