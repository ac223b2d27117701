import Glibc
import HSMRemotes
import HSMSystem
import Synchronization

/// Counts the names in a directory tree on a thread of its own, without looking at anything but directories: the total
/// for a progress bar.
package final class TreeCounter: Sendable {
    private let count = Atomic<Int>(0)
    private let isFinished = Atomic<Bool>(false)
    private let isCancelled = Atomic<Bool>(false)

    /// Begins to count what is below `location`, when that is a directory of this machine and there is a thread for it. What cannot
    /// be read is left out.
    package init(_ location: RemoteLocation) {
        try? startThread(name: "count") { [weak self] in
            guard let path = location.path, let top = try? Descriptor.openTop(path) else { return }
            try? self?.walk(top)
        }
    }

    /// Names of every kind below the top directory; nil until they are counted.
    package var total: Int? { isFinished.load(ordering: .acquiring) ? count.load(ordering: .relaxed) : nil }

    /// Ends the count; ``total`` stays as it is.
    package func cancel() { isCancelled.store(true, ordering: .relaxed) }

    private func walk(_ place: Descriptor) throws(Errno) {
        var stack = try DirectoryStack(top: try Descriptor.openDirectory(at: place, [0x2e]))
        var cursors = [DirectoryCursor()]
        while !isCancelled.load(ordering: .relaxed) {
            // A directory that fails is left like one that has ended.
            if let entry = try? cursors[cursors.count - 1].next(in: stack.current) {
                if stack.depth == 0 && entry.name == Array(".passhsm".utf8) { continue }
                count.add(1, ordering: .relaxed)
                guard isDirectory(entry, in: stack.current),
                    let directory = try? Descriptor.openDirectory(at: stack.current, entry.name)
                else { continue }
                if let closed = try stack.push(directory, name: entry.name) { cursors[closed].suspend() }
                cursors.append(DirectoryCursor())
            } else if stack.depth > 0 {
                try stack.pop()
                cursors.removeLast()
            } else {
                isFinished.store(true, ordering: .releasing)
                return
            }
        }
    }

    private func isDirectory(_ entry: DirectoryCursor.Entry, in directory: Descriptor) -> Bool {
        guard Int(entry.type) == DT_UNKNOWN else { return Int(entry.type) == DT_DIR }
        return (try? directory.stat(entry.name).st_mode).map { $0 & S_IFMT == S_IFDIR } ?? false
    }
}
