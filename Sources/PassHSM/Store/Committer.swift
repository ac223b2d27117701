import HSMSystem

/// Makes fills durable in groups: one thread, which syncs many files at once.
///
/// A group is what came within a tenth of a second. For a few files each is synced by itself; for many one syncfs(2) is
/// cheaper (DESIGN: 250 us an fdatasync).
final class Committer: Sendable {
    private static let delay = 0.1
    /// From so many files on the whole file system is synced instead.
    private static let manyFiles = 8
    /// More files than this hold up those who fill them, so that their descriptors are bounded.
    private static let mostWaiting = 2048
    /// A group that has grown to this size does not wait any longer.
    private static let fullGroup = 512

    private let condition = Condition()
    // Guarded by condition's lock, under which nothing is called.
    private nonisolated(unsafe) var waiting: [ObjectIdentifier: StoredFile] = [:]
    private nonisolated(unsafe) var isRunning = false
    private nonisolated(unsafe) var isBusy = false

    /// Blocks while too many files wait.
    func schedule(_ file: StoredFile) {
        condition.lock()
        while waiting.count >= Self.mostWaiting && waiting[ObjectIdentifier(file)] == nil {
            _ = condition.wait(seconds: Self.delay)
        }
        waiting[ObjectIdentifier(file)] = file
        let start = !isRunning
        isRunning = true
        let wake = waiting.count == 1 || waiting.count == Self.fullGroup
        condition.unlock()
        if start {
            startThread(name: "commit") { [weak self] in self?.loop() }
        } else if wake {
            condition.broadcast()
        }
    }

    /// Commits everything that waits now, and returns when it is done.
    func drain() {
        while true {
            condition.lock()
            let files = take()
            let isBusy = self.isBusy
            if files.isEmpty && isBusy { _ = condition.wait(seconds: Self.delay) }
            condition.unlock()
            if files.isEmpty && !isBusy { return }
            commit(files)
        }
    }

    private func take() -> [StoredFile] {
        defer { waiting.removeAll(keepingCapacity: true) }
        return Array(waiting.values)
    }

    private func loop() {
        while true {
            condition.lock()
            while waiting.isEmpty { condition.wait() }
            if waiting.count < Self.fullGroup { _ = condition.wait(seconds: Self.delay) }
            let files = take()
            isBusy = true
            condition.unlock()
            commit(files)
            condition.lock()
            isBusy = false
            condition.unlock()
            condition.broadcast()
        }
    }

    private func commit(_ files: [StoredFile]) {
        guard let store = files.first?.store else { return }
        var isSynced = false
        if files.count >= Self.manyFiles {
            do throws(Errno) {
                try store.tree.original.syncFileSystem()
                isSynced = true
            } catch {
                store.log.warning("syncfs failed, syncing each file: \(error.text)")
            }
        }
        for file in files {
            do throws(Errno) {
                try file.commit(isSynced: isSynced)
                store.committed(file.handle)
            } catch {
                // The content stays readable, and what is not recorded is fetched again after a restart.
                store.log.error(
                    "a fill could not be made durable: \(error.text)", metadata: ["file": "\(file.handle.name)"])
            }
        }
    }
}
