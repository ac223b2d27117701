import HSMControl
import HSMSystem

/// The unfinished jobs that clients have asked a daemon for. When the daemon ends, it ends the jobs first and tells
/// each client. Safe on every thread.
package final class JobList: Sendable {
    private struct State {
        /// By numbers that are not used again.
        var jobs: [Int: FileJob] = [:]
        var started = 0
        var isEnding = false
    }

    static let ending = "the mount is ending; files that were not done yet stay as they were"

    private let condition = Condition()
    // Guarded by the condition's lock. Leaf: nothing is called while it is held.
    private nonisolated(unsafe) var state = State()

    package init() {}

    /// The number of jobs.
    package var count: Int {
        condition.lock()
        defer { condition.unlock() }
        return state.jobs.count
    }

    /// Does `job` on the calling thread, which may block, and returns after the last answer. The last answer of a
    /// finished job is a report that says so; that of any other job is an error. If an answer is not taken (false), the
    /// job ends.
    package func run(_ job: FileJob, _ answer: (ControlReply) -> Bool) {
        guard let number = enter(job) else {
            _ = answer(ControlReply(error: Self.ending))
            return
        }
        if !job.run({ answer(ControlReply(work: $0)) }) { _ = answer(ControlReply(error: Self.ending)) }
        condition.lock()
        state.jobs[number] = nil
        condition.unlock()
        condition.broadcast()
    }

    /// Cancels every job, and refuses those that come from now on. Returns at once.
    package func cancel() {
        condition.lock()
        state.isEnding = true
        let jobs = Array(state.jobs.values)
        condition.unlock()
        for job in jobs { job.cancel() }
    }

    /// Calls ``cancel()`` and waits for at most `seconds` until the clients have their last answers; false when some
    /// have not.
    package func end(seconds: Double) -> Bool {
        cancel()
        let deadline = Deadline(seconds: seconds)
        condition.lock()
        defer { condition.unlock() }
        while !state.jobs.isEmpty && !deadline.hasPassed { _ = condition.wait(seconds: 0.1) }
        return state.jobs.isEmpty
    }

    /// Adds a job and returns its number; nil while the daemon ends.
    private func enter(_ job: FileJob) -> Int? {
        condition.lock()
        defer { condition.unlock() }
        if state.isEnding { return nil }
        state.started += 1
        state.jobs[state.started] = job
        return state.started
    }
}
