import HSMStore
import Synchronization

/// Keeps an incomplete file active. A lease ends when it is dropped; the last lease then deactivates the file if
/// nothing else uses it.
///
/// It must not end under the file's transition lock, because its end takes that lock.
package struct Lease<Observer: FileObserver>: ~Copyable, Sendable {
    package let file: Observer.File
    package let content: IncompleteFile
    private let files: ManagedFiles<Observer>

    /// For a lease that `file`'s lifecycle counts already.
    init(_ file: Observer.File, _ content: IncompleteFile, _ files: ManagedFiles<Observer>) {
        (self.file, self.content, self.files) = (file, content, files)
    }

    deinit { files.endLease(on: file) }

    package consuming func end() {}

    /// Ends the lease on a thread of the pool, so that the caller does not wait for the file's locks. Deadlines and
    /// kills are then answered at once.
    package consuming func endLater() {
        let pool = files.pool
        let held = HeldLease(self)
        pool.run { held.end() }
    }
}

/// A lease that a closure can hold, while a fill runs.
package final class HeldLease<Observer: FileObserver>: Sendable {
    private let lease: Mutex<Lease<Observer>?>

    package init(_ lease: consuming Lease<Observer>) { self.lease = Mutex(lease) }

    /// Returns the lease, and nil from the second call on.
    package func take() -> Lease<Observer>? { lease.withLock { $0.take() } }

    package func end() { _ = take() }

    /// See ``Lease/endLater()``.
    package func endLater() { if let lease = take() { lease.endLater() } }
}
