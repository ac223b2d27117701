import Glibc

/// A POSIX mutex for sections that do blocking I/O. `Synchronization.Mutex` must not be held across that.
package final class Lock: @unchecked Sendable {
    // Sendable: POSIX allows a mutex to be used by every thread.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    package init() { pthread_mutex_init(mutex, nil) }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Calls `body` while the lock is held. Blocks until the lock is free.
    package func withLock<Result: ~Copyable, Failure>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    /// As ``withLock(_:)`` when the lock is free. Otherwise does nothing and returns nil.
    package func withLockIfFree<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result? {
        guard pthread_mutex_trylock(mutex) == 0 else { return nil }
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }
}
