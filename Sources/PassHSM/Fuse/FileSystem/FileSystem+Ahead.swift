import Glibc
import HSMCore
import HSMFuseDoor
import HSMSystem

/// Tells reads that a program waits for from reads ahead: readahead(2), posix_fadvise(2), madvise(2) and MAP_POPULATE
/// come as READ, just as reads do.
///
/// A read(2) of a page whose READ is under way waits in the kernel, and the kernel does not tell the daemon. A prefetch
/// is therefore always served beside the demand, only less often (``FetchQueue``).
extension FileSystem {
    /// Waiting reads whose threads were seen running, by thread.
    struct Runners {
        var new: [pid_t: [FillEngine.Waiter]] = [:]
        /// Reads whose threads were still running, or in a call that is not a read, at the first look.
        var old: [pid_t: [FillEngine.Waiter]] = [:]
        var isLooking = false
    }

    /// The priority of a read that has to wait. A read that cannot be judged is demand. A thread that waits for
    /// something else sent the read ahead earlier, so the read is a prefetch. A running thread does not wait for the
    /// read, or does not wait yet: it is to be looked at again (``recheckLater(_:_:)``).
    static func priority(of caller: Caller) -> (FillState.Priority, isDoubtful: Bool) {
        switch CallerSyscall.activity(of: caller.thread, looks: 1) {
        case .waits(let call): (call.readsAhead || call.waitsForOther ? .prefetch : .demand, false)
        case .runs: (.prefetch, true)
        case .unknown: (.demand, false)
        }
    }

    /// Checks after 20 milliseconds, and again about a second later, whether `thread` waits for the read of `waiter`
    /// after all.
    func recheckLater(_ waiter: FillEngine.Waiter, _ thread: pid_t) {
        let starts = runners.withLock { runners in
            defer { runners.isLooking = true }
            runners.new[thread, default: []].append(waiter)
            return !runners.isLooking
        }
        guard starts else { return }
        Task(executorPreference: pool) { [self] in
            try? await Task.sleep(for: .milliseconds(20))
            let new = runners.withLock { runners in
                defer { (runners.new, runners.isLooking) = ([:], false) }
                return runners.new
            }
            let left = promoteWaiting(new)
            runners.withLock { $0.old.merge(left) { $0 + $1 } }
        }
    }

    /// The second look at running threads. Does not block.
    func recheckRunning() {
        let old = runners.withLock { runners in
            defer { runners.old = [:] }
            return runners.old
        }
        if !old.isEmpty { pool.run { [self] in _ = promoteWaiting(old) } }
    }

    /// Makes the waiters whose threads wait for them demand, and returns the others.
    private func promoteWaiting(_ waiters: [pid_t: [FillEngine.Waiter]]) -> [pid_t: [FillEngine.Waiter]] {
        waiters.filter { thread, waiters in
            switch CallerSyscall.activity(of: thread, looks: 1) {
            case .runs: return true
            case .waits(let call) where !call.readsRange: return true
            // A thread that waits outside a system call waits for a page of a mapping.
            case .waits, .unknown:
                for waiter in waiters { engine.becomeDemand(waiter) }
                return false
            }
        }
    }
}
