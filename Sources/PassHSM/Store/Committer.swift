import HSMSystem

/// Makes fills durable in groups: one thread syncs many files at once.
///
/// A group is what comes within a tenth of a second. The thread syncs each of a few files by itself; for many files one
/// syncfs(2) is cheaper (an fdatasync takes 250 us).
final class Committer: Sendable {
    /// Seconds that the thread waits for a group to grow.
    private let delay: Double
    /// From this count of files on, the whole file system is synced instead.
    private static let manyFiles = 8
    /// When so many files wait, ``waitForRoom(_:)`` blocks callers that fill more: this bounds the descriptors.
    private let maxWaiting: Int
    /// A group of this size does not wait any longer.
    private static let fullGroup = 512

    private let condition = Condition()
    // Guarded by condition's lock; nothing is called under it.
    private nonisolated(unsafe) var waiting: [ObjectIdentifier: StoredFile] = [:]
    private nonisolated(unsafe) var hasThread = false
    /// The count of groups that are being committed.
    private nonisolated(unsafe) var groups = 0

    /// - Parameter maxWaiting: the bound of files that wait, and of files that are being committed. Nil: as many as
    ///   the reserve of descriptors has room for.
    init(delay: Double = 0.1, maxWaiting: Int? = nil) {
        self.delay = delay
        let reserve = Capabilities.descriptorReserve(limit: Capabilities.descriptorLimit().now)
        self.maxWaiting = maxWaiting ?? min(2048, max(4, reserve / 4))
    }

    /// Blocks while too many files wait. The committing thread must not call it: only that thread makes room.
    func waitForRoom(_ file: StoredFile) {
        condition.lock()
        while waiting.count >= maxWaiting && waiting[ObjectIdentifier(file)] == nil {
            _ = condition.wait(seconds: 0.1)
        }
        condition.unlock()
    }

    /// Starts the committing thread, if there is none. Must be called before the first ``schedule(_:)``.
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

    /// Commits everything that waits now, and returns when this is done.
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

    /// Drops everything that waits, as a crash would. For tests.
    func abandon() {
        condition.lock()
        let files = waiting
        waiting = [:]
        condition.unlock()
        // Dropping the last reference calls code, which must not run under the lock.
        withExtendedLifetime(files) {}
    }

    /// Takes a group, which the caller commits by ``commit(_:)``. The condition's lock is held.
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
            // A group gets its full time, also when something else wakes the thread.
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
        // All commits begin before the sync: bytes that come later are not synced.
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
                store.log.debug("committed the bytes that arrived", metadata: ["file": "\(file.handle.name)"])
            } catch {
                // The content stays readable. Content that is not recorded is fetched again after a restart.
                store.log.error(
                    "a fill could not be made durable: \(error.text)", metadata: ["file": "\(file.handle.name)"])
            }
        }
    }
}
