import Glibc
import HSMControl
import HSMCore
import HSMStore
import HSMSystem

/// One kind of work on many files, done by a few threads.
final class FileWork: Sendable {
    /// Does the work on one file (O_PATH), and tells the bytes that it has come forward; it ends when it is answered false.
    typealias Action = @Sendable (Descriptor, _ progress: (Int) -> Bool) throws(Refusal) -> Void

    private struct State {
        var walk: FileWalk
        var report = WorkReport()
        var threads: Int
        var isStopped = false
    }

    private let action: Action
    private let condition = Condition()
    // Guarded by the condition's lock. The walk does lower I/O under it, which its users wait for anyway.
    private nonisolated(unsafe) var state: State
    private let counting: FileWalk
    /// Its lock is held with no other.
    private let room = Condition()
    /// Threads that are at a large file; guarded by the lock of ``room``.
    private nonisolated(unsafe) var atLarge = 0
    /// At once: of small files, each of which is a round trip to the remote, as many as it is asked for at a time; each may
    /// hold a thread and some descriptors.
    private static let mostThreads = 48
    /// Of large files fewer keep a remote busy: more would only share it, and get to their deadlines.
    private static let mostAtLarge = 8
    private static let large = 1 << 20

    init(top: Descriptor, paths: [BytePath], isRecursive: Bool, threads: Int, _ action: @escaping Action) {
        self.action = action
        counting = FileWalk(
            top: top, paths: paths.map(\.bytes), isRecursive: isRecursive, hidden: Store.folder)
        state = State(walk: counting, threads: threads)
    }

    /// What a client of the control socket asks for.
    convenience init(_ request: ControlRequest, on mount: some FrontEnd) {
        let action: Action =
            switch request.command {
            case .release:
                { file, progress throws(Refusal) in
                    _ = progress(try mount.release(file) { progress(0) })
                }
            case .recall: { file, progress throws(Refusal) in try mount.recall(file, progress) }
            default:
                { file, _ throws(Refusal) in try mount.setPinned(request.command == .pin, file) }
            }
        self.init(
            top: mount.top, paths: request.paths ?? [], isRecursive: request.recursive ?? false,
            threads: request.command == .recall ? Self.mostThreads : 2, action)
    }

    /// Does it all; `report` is called about twice a second, and at the end. It gives up what is not done when a report is
    /// answered false.
    func run(_ report: (WorkReport) -> Bool) {
        condition.lock()
        let threads = state.threads
        condition.unlock()
        startThread(name: "count") { [self] in count() }
        for _ in 0..<threads { startThread(name: "work") { [self] in work() } }
        while true {
            condition.lock()
            if state.threads > 0 { _ = condition.wait(seconds: 0.5) }
            var news = state.report
            news.isDone = state.threads == 0
            state.report.failures = []
            condition.unlock()
            if !report(news) { stop() }
            if news.isDone { return }
        }
    }

    private func stop() {
        condition.lock()
        state.isStopped = true
        condition.unlock()
    }

    private func work() {
        while let item = next() {
            var failure: String?
            do throws(Errno) {
                let file = try item.file.get()
                let isLarge = try file.stat().st_size > Self.large
                if isLarge { beginLarge() }
                do throws(Refusal) { try action(file, advance) } catch { failure = error.cause }
                if isLarge { endLarge() }
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
        state.threads -= 1
        condition.unlock()
        condition.broadcast()
    }

    private func beginLarge() {
        room.lock()
        while atLarge == Self.mostAtLarge { room.wait() }
        atLarge += 1
        room.unlock()
    }

    private func endLarge() {
        room.lock()
        atLarge -= 1
        room.unlock()
        room.signal()
    }

    private func next() -> FileWalk.Item? {
        condition.lock()
        defer { condition.unlock() }
        return state.isStopped ? nil : state.walk.next()
    }

    private func advance(_ bytes: Int) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        state.report.bytes += bytes
        return !state.isStopped
    }

    /// How much there is to do.
    private func count() {
        var (walk, files, bytes) = (counting, 0, 0)
        while let item = walk.next() {
            files += 1
            bytes += (try? item.file.get().stat().st_size) ?? 0
            guard advance(0) else { return }
        }
        condition.lock()
        (state.report.totalFiles, state.report.totalBytes) = (files, bytes)
        condition.unlock()
    }
}
