import HSMSystem

/// Makes fills durable in groups: one thread, which syncs many files at once.
///
/// A group is what came within a tenth of a second. For a few files each is synced by itself; for many one syncfs(2) is
/// cheaper (DESIGN: 250 us an fdatasync).
final class Committer: Sendable {
    /// Seconds that a group is waited for.
    private let delay: Double
    /// From so many files on the whole file system is synced instead.
    private static let manyFiles = 8
    /// More files than this hold up those who fill them, so that their descriptors are bounded.
    private let mostWaiting: Int
    /// A group that has grown to this size does not wait any longer.
    private static let fullGroup = 512

    private let condition = Condition()
    // Guarded by condition's lock, under which nothing is called.
    private nonisolated(unsafe) var waiting: [ObjectIdentifier: StoredFile] = [:]
    private nonisolated(unsafe) var hasThread = false
    /// Groups that are being committed.
    private nonisolated(unsafe) var groups = 0

    /// - Parameter mostWaiting: nil: as many as the reserve of descriptors has room for; as many may be being committed.
    init(delay: Double = 0.1, mostWaiting: Int? = nil) {
        self.delay = delay
        let reserve = Capabilities.descriptorReserve(limit: Capabilities.descriptorLimit().now)
        self.mostWaiting = mostWaiting ?? min(2048, max(4, reserve / 4))
    }

    /// Blocks while too many files wait. Not for the thread that commits, which alone makes room.
    func waitForRoom(_ file: StoredFile) {
        condition.lock()
        while waiting.count >= mostWaiting && waiting[ObjectIdentifier(file)] == nil {
            _ = condition.wait(seconds: 0.1)
        }
        condition.unlock()
    }

    /// Starts the thread that commits, if there is none. To be called before the first ``schedule(_:)``.
    ///
    /// - Throws: EAGAIN when the system gives no thread.
    func start() throws(Errno) {
        condition.lock()
        let isFirst = !hasThread
        hasThread = true
        condition.unlock()
        guard isFirst else { return }
        do throws(Errno) { try startThread(name: "commit") { [weak self] in self?.loop() } } catch {
            condition.lock()
            hasThread = false
            condition.unlock()
            throw error
        }
    }

    /// Commits `file` soon. Does not block.
    func schedule(_ file: StoredFile) {
        condition.lock()
        let isNew = waiting.updateValue(file, forKey: ObjectIdentifier(file)) == nil
        let wake = isNew && (waiting.count == 1 || waiting.count == Self.fullGroup)
        condition.unlock()
        if wake { condition.broadcast() }
    }

    /// Commits everything that waits now, and returns when it is done.
    func drain() {
        while true {
            condition.lock()
            if waiting.isEmpty && groups == 0 {
                condition.unlock()
                return
            }
            if waiting.isEmpty { _ = condition.wait(seconds: 0.1) }
            let files = take()
            condition.unlock()
            commit(files)
        }
    }

    /// Drops what waits, as a crash would. For tests.
    func abandon() {
        condition.lock()
        let files = waiting
        waiting = [:]
        condition.unlock()
        // Their last owners must not go under the lock.
        withExtendedLifetime(files) {}
    }

    /// Under the condition's lock: a group, to be committed by ``commit(_:)``.
    private func take() -> [StoredFile] {
        defer { waiting.removeAll(keepingCapacity: true) }
        groups += 1
        return Array(waiting.values)
    }

    private func loop() {
        while true {
            condition.lock()
            while waiting.isEmpty { condition.wait() }
            let end = ContinuousClock.now + .seconds(delay)
            // Whatever wakes it, a group is given its time.
            while !waiting.isEmpty && waiting.count < Self.fullGroup {
                let rest = (end - .now) / .seconds(1)
                guard rest > 0, condition.wait(seconds: rest) else { break }
            }
            let files = take()
            condition.unlock()
            commit(files)
        }
    }

    private func commit(_ files: [StoredFile]) {
        defer {
            condition.lock()
            groups -= 1
            condition.unlock()
            condition.broadcast()
        }
        guard let store = files.first?.store else { return }
        // What comes after the sync is not synced, so that all commits are begun before it.
        let commits = files.map { ($0, $0.beginCommit()) }
        var isSynced = false
        if files.count >= Self.manyFiles {
            do throws(Errno) {
                try store.tree.directory.original.syncFileSystem()
                isSynced = true
            } catch {
                store.log.warning("syncfs failed, syncing each file: \(error.text)")
            }
        }
        for (file, commit) in commits {
            do throws(Errno) {
                try file.end(commit, isSynced: isSynced)
                store.committed(file.handle)
            } catch {
                // The content stays readable, and what is not recorded is fetched again after a restart.
                store.log.error(
                    "a fill could not be made durable: \(error.text)", metadata: ["file": "\(file.handle.name)"])
            }
        }
    }
}
