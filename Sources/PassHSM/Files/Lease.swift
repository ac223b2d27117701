import HSMStore
import Synchronization

/// Keeps an incomplete file active. Ends when it is let go of, and then deactivates the file if nobody else uses it.
///
/// It must not end under the file's transition lock, which its end takes.
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

    /// Ends it after an answer that must not wait for it: whatever the file's locks are held for, deadlines and kills are
    /// answered at once.
    package consuming func endLater() {
        let pool = files.pool
        let held = HeldLease(self)
        pool.run { held.end() }
    }
}

/// A lease that waits for a fill: can be held by a closure.
package final class HeldLease<Observer: FileObserver>: Sendable {
    private let lease: Mutex<Lease<Observer>?>

    package init(_ lease: consuming Lease<Observer>) { self.lease = Mutex(lease) }

    /// The lease, once.
    package func take() -> Lease<Observer>? { lease.withLock { $0.take() } }

    package func end() { _ = take() }

    /// See ``Lease/endLater()``.
    package func endLater() { if let lease = take() { lease.endLater() } }
}
