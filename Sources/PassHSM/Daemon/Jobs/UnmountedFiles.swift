import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Works on the files of a lower directory that is not mounted.
package struct UnmountedFiles: FileActions {
    private let store: Store
    private let source: any RemoteStore
    private let pool = BlockingPool(name: "remote", limit: 2)

    /// - Parameter store: open for this process alone.
    /// - Throws: why the remote tier cannot be opened.
    package init(_ store: Store) throws {
        self.store = store
        source = try store.configuration().openRemote()
    }

    package var top: Descriptor { store.tree.root }

    package func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        let lower = try open(file)
        let record = try store.releasable(lower)
        try source.confirm(record, on: pool, while: goesOn)
        return try store.release(lower, expecting: record)
    }

    package func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        throw Refusal("it is not in a mount")
    }

    package func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        try store.setPinned(isPinned, open(file))
    }

    private func open(_ file: Descriptor) throws(Refusal) -> Descriptor {
        do throws(Errno) {
            guard try file.stat().st_mode & S_IFMT == S_IFREG else { throw Errno(rawValue: EINVAL) }
            return try file.reopen(O_RDWR)
        } catch {
            throw Refusal(error.rawValue == EINVAL ? "it is not a regular file" : "opening it: \(error.text)")
        }
    }
}
