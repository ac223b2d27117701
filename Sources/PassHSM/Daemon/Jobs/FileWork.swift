import Glibc
import HSMControl
import HSMCore
import HSMStore
import HSMSystem

/// One kind of work on many files, done by a few tasks at once.
package final class FileWork: Sendable {
    /// Does the work on one file (O_PATH), and tells the bytes that it has come forward; it ends when it is answered false,
    /// or the task is cancelled. May block.
    package typealias Action = @Sendable (Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) -> Void

    private struct State {
        var walk: FileWalk
        var report = WorkReport()
        var tasks: Int
        var isStopped = false
    }

    private let action: Action
    private let condition = Condition()
    // Guarded by the condition's lock. The walk does lower I/O under it, which its users wait for anyway.
    private nonisolated(unsafe) var state: State
    private let counting: FileWalk
    /// Of large files fewer keep a remote busy: more would only share it.
    private let room = TurnLimit(8)
    private static let large = 1 << 20
    /// Files that are recalled at once: of small ones, each of which is a round trip to the remote, as many as it is asked
    /// for at a time; each holds some descriptors.
    private static let mostRecalls = 64
    private static let pool = BlockingPool(name: "work", limit: 64)

    /// - Parameter tasks: files at once.
    package init(
        top: Descriptor, paths: [BytePath], isRecursive: Bool, tasks: Int, _ action: @escaping Action
    ) {
        self.action = action
        counting = FileWalk(
            top: top, paths: paths.map(\.bytes), isRecursive: isRecursive, hidden: Store.folder)
        state = State(walk: counting, tasks: tasks)
    }

    /// What a client of the control socket asks for.
    convenience init(_ request: ControlRequest, on mount: some FrontEnd) {
        let action: Action =
            switch request.command {
            case .release:
                { file, progress throws(Refusal) in
                    _ = progress(try mount.release(file) { progress(0) })
                }
            case .recall: { file, progress throws(Refusal) in try await mount.recall(file, progress) }
            default:
                { file, _ throws(Refusal) in try mount.setPinned(request.command == .pin, file) }
            }
        self.init(
            top: mount.top, paths: request.paths ?? [], isRecursive: request.recursive ?? false,
            tasks: request.command == .recall ? Self.mostRecalls : 2, action)
    }

    /// Does it all; `report` is called about twice a second, and at the end. It gives up what is not done when a report is
    /// answered false.
    package func run(_ report: (WorkReport) -> Bool) {
        condition.lock()
        let count = state.tasks
        condition.unlock()
        let tasks = (0..<count).map { _ in Task(executorPreference: Self.pool) { await self.work() } }
        let begin = ContinuousClock.now
        var isCounted = false
        while true {
            condition.lock()
            if state.tasks > 0 { _ = condition.wait(seconds: 0.5) }
            var news = state.report
            news.isDone = state.tasks == 0
            state.report.failures = []
            let isStopped = state.isStopped
            condition.unlock()
            if !report(news) && !isStopped {
                stop()
                for task in tasks { task.cancel() }
            }
            if news.isDone { return }
            // Not for what takes no time: it is a walk more.
            if !isCounted && begin + .seconds(1) < .now {
                isCounted = true
                // Without a thread nobody is told how much there is.
                try? startThread(name: "count") { [self] in self.count() }
            }
        }
    }

    private func stop() {
        condition.lock()
        state.isStopped = true
        condition.unlock()
    }

    private func work() async {
        while let item = next() {
            var failure: String?
            do throws(Errno) {
                let file = try item.file.get()
                let isLarge = try file.stat().st_size > Self.large
                if isLarge { await room.enter() }
                do throws(Refusal) { try await action(file, advance) } catch { failure = error.cause }
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
        return state.isStopped ? nil : state.walk.next()
    }

    private func advance(_ bytes: Int) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        state.report.bytes.add(saturating: bytes)
        return !state.isStopped
    }

    /// How much there is to do.
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
