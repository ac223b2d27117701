import Glibc
import HSMFiles
import HSMStore
import HSMSystem
import Synchronization

/// The known files, by file handle, and the kernel's marks on them.
final class TrackedFiles: Sendable {
    private static let shardCount = 16
    private let shards: [Shard] = (0..<shardCount).map { _ in Shard() }
    private let tree: LowerTree
    private let group: EventGroup
    private let ignoresNothing: Bool

    private final class Shard: Sendable {
        /// Nothing but a file's own leaf lock is taken while it is held.
        let files = Mutex<[FileHandle: TrackedFile]>([:])
    }

    /// - Parameter ignoresNothing: complete files raise events too.
    init(tree: LowerTree, group: EventGroup, ignoresNothing: Bool) {
        (self.tree, self.group, self.ignoresNothing) = (tree, group, ignoresNothing)
    }

    private func shard(_ handle: FileHandle) -> Shard {
        shards[Int(UInt(bitPattern: handle.hashValue) % UInt(Self.shardCount))]
    }

    var count: Int { shards.reduce(0) { $0 + $1.files.withLock(\.count) } }

    /// The file of `handle`, until ``drop(_:)``.
    func hold(_ handle: FileHandle) -> TrackedFile {
        shard(handle).files.withLock { files in
            let file = files[handle] ?? TrackedFile(handle)
            files[handle] = file
            file.holds += 1
            return file
        }
    }

    private func forget(_ file: TrackedFile, isDropped: Bool) {
        shard(file.handle).files.withLock { files in
            if isDropped { file.holds -= 1 }
            let isNeeded = file.holds > 0 || file.withState(\.lifecycle.isNeeded)
            if !isNeeded, files[file.handle] === file { files[file.handle] = nil }
        }
    }

    /// The files whose lifecycle `filter` accepts.
    func all(where filter: (FileLifecycle) -> Bool) -> [TrackedFile] {
        shards.flatMap { $0.files.withLock { $0.values.filter { filter($0.withState(\.lifecycle)) } } }
    }

    /// See ``EventGroup/ignore(_:of:)``.
    func ignore(_ ignored: EventGroup.Ignored, of file: Descriptor) {
        if !ignoresNothing { group.ignore(ignored, of: file) }
    }
}

extension TrackedFiles: FileObserver {
    func find(_ handle: FileHandle) -> TrackedFile? { shard(handle).files.withLock { $0[handle] } }

    func hold(_ place: Descriptor) throws(Errno) -> TrackedFile? {
        guard try place.stat().st_mode & S_IFMT == S_IFREG else { return nil }
        return hold(try FileHandle(of: place))
    }

    func drop(_ file: TrackedFile) { forget(file, isDropped: true) }

    func open(_ file: TrackedFile, _ flags: Int32) throws(Errno) -> Descriptor { try tree.open(file.handle, flags) }

    /// The kernel may still ignore events of a file that was complete before.
    func willActivate(_ file: TrackedFile, _ lower: Descriptor, for user: Never?) throws(Errno) {
        try group.unignore(lower)
    }

    func didActivate(_ file: TrackedFile, _ share: Void) {}

    func didDeactivate(_ file: TrackedFile, _ content: IncompleteFile, isFinished: Bool) {
        // From here on the kernel reads the file by itself. It was not released since, because `content` is open for
        // writing. A dirty file without a returnable mark never becomes clean again.
        guard isFinished else { return }
        ignore(content.stored.record.flags.contains(.dirty) ? .all : .access, of: content.stored.lower)
    }

    func willRelease(_ file: TrackedFile, _ lower: Descriptor) throws(Errno) { try group.unignore(lower) }

    func didStayDirty(_ file: TrackedFile, _ lower: Descriptor) { ignore(.all, of: lower) }

    /// Nothing to do: the kernel's pages are the lower file's own.
    func forgetPages(of file: TrackedFile) {}

    func didRefetch(_ file: TrackedFile) {}

    func noLongerUsed(_ file: TrackedFile) { forget(file, isDropped: false) }
}
