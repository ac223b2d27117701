import CFuse
import HSMCore
import HSMSystem

/// Who waits for a read: readahead(2), posix_fadvise(2), madvise(2) and MAP_POPULATE come as READ, as reads do.
///
/// A read(2) of a page that is under way already waits in the kernel, which does not tell. So a prefetch is always served
/// beside the demand, if less (``FetchQueue``).
extension FileSystem {
    /// Reads whose threads went on running, by thread.
    struct Runners {
        var new: [pid_t: [FillEngine.Ticket]] = [:]
        /// Those that were looked at once more.
        var old: [pid_t: [FillEngine.Ticket]] = [:]
        var isLooking = false
    }

    /// How urgent a read is that has to wait. What cannot be told is demand. A thread that waits for something else has
    /// asked before; one that runs does not wait, or does not yet: it is to be looked at again (``lookAgain(_:_:)``).
    static func priority(of caller: fuse_ctx) -> (FillState.Priority, isDoubtful: Bool) {
        switch CallerSyscall.activity(of: caller.pid, looks: 1) {
        case .waits(let call): (call.readsAhead || call.waitsForOther ? .prefetch : .demand, false)
        case .runs: (.prefetch, true)
        case .unknown: (.demand, false)
        }
    }

    /// Looks in a moment, and then within a second, whether `thread` waits for the read of `ticket` after all.
    func lookAgain(_ ticket: FillEngine.Ticket, _ thread: pid_t) {
        let starts = runners.withLock { runners in
            defer { runners.isLooking = true }
            runners.new[thread, default: []].append(ticket)
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

    /// The second look. Does not block.
    func lookAtRunners() {
        let old = runners.withLock { runners in
            defer { runners.old = [:] }
            return runners.old
        }
        if !old.isEmpty { pool.run { [self] in _ = promoteWaiting(old) } }
    }

    /// Those that are not waited for.
    private func promoteWaiting(_ tickets: [pid_t: [FillEngine.Ticket]]) -> [pid_t: [FillEngine.Ticket]] {
        tickets.filter { thread, tickets in
            switch CallerSyscall.activity(of: thread, looks: 1) {
            case .runs: return true
            case .waits(let call) where !call.readsRange: return true
            // Outside of a call it waits for a page of a mapping.
            case .waits, .unknown:
                for ticket in tickets { engine.becomeDemand(ticket) }
                return false
            }
        }
    }
}
