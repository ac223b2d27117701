import Glibc
import HSMStore
import HSMSystem
import Synchronization

/// Counts the names in a directory tree on a thread of its own, and looks only at directories: the total for a progress
/// bar.
package final class TreeCounter: Sendable {
    private let count = Atomic<Int>(0)
    private let isFinished = Atomic<Bool>(false)
    private let isCancelled = Atomic<Bool>(false)

    /// Starts to count the names below `directory`, if there is one, and a thread. Directories that cannot be read are
    /// left out.
    package init(_ directory: BytePath?) {
        guard let directory else { return }
        try? startThread(name: "count") { [weak self] in
            guard let top = try? Descriptor.openTop(directory.bytes) else { return }
            try? self?.walk(top)
        }
    }

    /// Names of every kind below the top directory; nil until the count is complete.
    package var total: Int? { isFinished.load(ordering: .acquiring) ? count.load(ordering: .relaxed) : nil }

    /// Ends the count; ``total`` stays as it is.
    package func cancel() { isCancelled.store(true, ordering: .relaxed) }

    private func walk(_ place: Descriptor) throws(Errno) {
        var walk = try NameWalk(top: place, hiding: Store.folder)
        while !isCancelled.load(ordering: .relaxed) {
            guard let step = try walk.next() else {
                isFinished.store(true, ordering: .releasing)
                return
            }
            guard case .name(let entry) = step else { continue }
            count.add(1, ordering: .relaxed)
            guard isDirectory(entry, in: walk.current),
                let directory = try? Descriptor.openDirectory(at: walk.current, entry.name)
            else { continue }
            try walk.enter(directory, entry.name)
        }
    }

    private func isDirectory(_ entry: DirectoryCursor.Entry, in directory: Descriptor) -> Bool {
        guard Int(entry.type) == DT_UNKNOWN else { return Int(entry.type) == DT_DIR }
        return (try? directory.stat(entry.name).st_mode).map { $0 & S_IFMT == S_IFDIR } ?? false
    }
}
