import Glibc
import HSMControl
import HSMCore
import HSMStore
import HSMSystem

/// Work on many files, done by a few tasks at once. Safe on every thread.
package final class FileJob: Sendable {
    private struct State {
        var walk: FileWalk
        var report = WorkReport()
        /// The number of tasks that have not ended.
        var tasks: Int
        /// All tasks, once they are started.
        var started: [Task<Void, Never>] = []
        var isCancelled = false
    }

    private let action: FileRequest.Action
    private let files: any FileActions
    private let condition = Condition()
    // Guarded by the condition's lock. The walk does I/O on the lower file system under it: its users have to wait for
    // that anyway.
    private nonisolated(unsafe) var state: State
    private let counting: FileWalk
    /// Limits large files that are worked on at once. A few keep a remote busy, and more would only share it.
    private let room = TurnLimit(8)
    private static let large = 1 << 20
    /// Files that are recalled at once. A small file is one round trip to the remote, so the limit is the number of
    /// requests that a remote gets at a time. Each file holds some descriptors.
    private static let maxRecalls = 64
    private static let pool = BlockingPool(name: "work", limit: 64)

    package init(_ request: FileRequest, on files: any FileActions) {
        action = request.action
        self.files = files
        counting = FileWalk(
            top: files.top, paths: request.paths.map(\.bytes), isRecursive: request.isRecursive, hidden: Store.folder)
        state = State(walk: counting, tasks: request.action == .recall ? Self.maxRecalls : 2)
    }

    /// Does the whole job, on the calling thread and its tasks. To be called once. False when the job was cancelled
    /// before its end.
    ///
    /// - Parameter report: called about twice a second, and at the end; false cancels the job.
    package func run(_ report: (WorkReport) -> Bool) -> Bool {
        start()
        let begin = ContinuousClock.now
        var isCounted = false
        while true {
            condition.lock()
            if state.tasks > 0 { _ = condition.wait(seconds: 0.5) }
            var news = state.report
            let (hasEnded, isCancelled) = (state.tasks == 0, state.isCancelled)
            news.isDone = hasEnded && !isCancelled
            state.report.failures = []
            condition.unlock()
            if !report(news) { cancel() }
            if hasEnded { return !isCancelled }
            // Counting is another walk: it is not worth it for a short job.
            if !isCounted && begin + .seconds(1) < .now {
                isCounted = true
                // Without a thread the reports lack the totals.
                try? startThread(name: "count") { [self] in self.count() }
            }
        }
    }

    /// Cancels the job: files that are not done yet stay as they are. ``run(_:)`` returns soon. Has no effect on a
    /// finished job.
    package func cancel() {
        condition.lock()
        let tasks = state.tasks > 0 && !state.isCancelled ? state.started : []
        if state.tasks > 0 { state.isCancelled = true }
        condition.unlock()
        for task in tasks { task.cancel() }
    }

    private func start() {
        condition.lock()
        let count = state.tasks
        condition.unlock()
        let tasks = (0..<count).map { _ in Task(executorPreference: Self.pool) { await self.work() } }
        condition.lock()
        state.started = tasks
        let isCancelled = state.isCancelled
        condition.unlock()
        if isCancelled { for task in tasks { task.cancel() } }
    }

    private func work() async {
        while let item = next() {
            var failure: String?
            do throws(Errno) {
                let file = try item.file.get()
                let isLarge = try file.stat().st_size > Self.large
                if isLarge { await room.enter() }
                do throws(Refusal) { try await files.perform(action, on: file, advance) } catch {
                    failure = error.cause
                }
                if isLarge { room.leave() }
            } catch { failure = String(cString: strerror(error.rawValue)) }
            condition.lock()
            if let failure {
                state.report.failures.append(.init(path: BytePath(item.path), cause: failure))
            } else {
                state.report.files += 1
            }
            condition.unlock()
        }
        condition.lock()
        state.tasks -= 1
        condition.unlock()
        condition.broadcast()
    }

    private func next() -> FileWalk.Item? {
        condition.lock()
        defer { condition.unlock() }
        return state.isCancelled ? nil : state.walk.next()
    }

    private func advance(_ bytes: Int) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        state.report.bytes.add(saturating: bytes)
        return !state.isCancelled
    }

    /// Counts the files and bytes of the whole job.
    private func count() {
        var (walk, files, bytes) = (counting, 0, 0)
        while let item = walk.next() {
            files += 1
            bytes.add(saturating: (try? item.file.get().stat().st_size) ?? 0)
            guard advance(0) else { return }
        }
        condition.lock()
        (state.report.totalFiles, state.report.totalBytes) = (files, bytes)
        condition.unlock()
    }
}
