import CLinux
import Glibc
import HSMSystem
import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// The flock(2) locks of the mount. Each file that is locked or waited for takes one descriptor. Waiters take no
/// thread. Waiters get their locks when a lock is given up through the mount. For holders outside the mount, one thread
/// tries again and again.
///
/// Safe on every thread. Each waiter's `answer` is called without a lock.
final class LockTable: Sendable {
    typealias Locks = FileLocks<ObjectIdentifier>

    /// A file with locks or waiters. It is in the table for as long as it has any.
    private final class LockedFile: Sendable {
        let key: ObjectIdentifier
        let lower: Descriptor
        private let share: DescriptorShares.Share?
        /// Held over calls of flock(2) that do not wait. Taken before ``LockTable/state``.
        let lock = Lock()
        // Guarded by `lock`.
        nonisolated(unsafe) var locks = Locks()
        nonisolated(unsafe) var isGone = false

        init(_ key: ObjectIdentifier, _ lower: Descriptor, _ share: DescriptorShares.Share?) {
            (self.key, self.lower, self.share) = (key, lower, share)
        }

        /// To be called with the lock.
        func change(_ mode: Locks.Mode?) -> Bool {
            let operation =
                switch mode {
                case .shared: LOCK_SH
                case .exclusive: LOCK_EX
                case nil: LOCK_UN
                }
            return passhsm_flock(lower.raw, operation | LOCK_NB) == 0
        }
    }

    /// A request that waits, or is about to.
    private struct Waiter {
        var file: LockedFile?
        let answer: Answer
        var isInterrupted = false
    }

    private struct State {
        var files: [ObjectIdentifier: LockedFile] = [:]
        var waiters: [UInt64: Waiter] = [:]
        var lastNumber: UInt64 = 0
    }

    /// Gets 0 or an errno.
    typealias Answer = @Sendable (Int32) -> Void

    /// A leaf lock.
    private let state = NIOLockedValueBox(State())
    private let condition = Condition()
    // Guarded by the condition's lock, under which no other code is called: the files whose waiters wait for a holder
    // outside the mount.
    private nonisolated(unsafe) var outside: [ObjectIdentifier: LockedFile] = [:]
    private nonisolated(unsafe) var isStopped = false

    /// Starts the thread that looks after holders outside the mount. - Throws: EAGAIN when the system gives none.
    func start() throws(Errno) { try startThread(name: "flock") { [self] in watch() } }

    func stop() {
        condition.lock()
        isStopped = true
        condition.unlock()
        condition.broadcast()
    }

    // MARK: Requests

    /// Returns a number for a request that waits. From now on the request can be interrupted by this number. `answer`
    /// is called once.
    func beginWaiting(_ answer: @escaping Answer) -> UInt64 {
        state.withLockedValue { state in
            state.lastNumber += 1
            state.waiters[state.lastNumber] = Waiter(file: nil, answer: answer)
            return state.lastNumber
        }
    }

    /// Tries to get a lock of `owner`, an open file, on the file `key`, without waiting. Returns false when another
    /// holder excludes it.
    ///
    /// - Parameter open: opens the lower file for locks, and returns it with the share that counts it.
    func acquire(
        _ mode: Locks.Mode, _ key: ObjectIdentifier, by owner: ObjectIdentifier, open: Opening
    ) throws(Errno) -> Bool {
        try with(key, open) { file, granted in
            file.locks.acquire(mode, for: owner, granted: &granted, file.change) == .granted
        }
    }

    /// As above, but waits. The `answer` of ``beginWaiting(_:)`` is called with the result.
    func acquire(
        _ mode: Locks.Mode, _ key: ObjectIdentifier, by owner: ObjectIdentifier, number: UInt64, open: Opening
    ) {
        do throws(Errno) {
            let result = try with(key, open) { file, granted -> Int32? in
                if file.locks.acquire(mode, for: owner, granted: &granted, file.change) == .granted { return 0 }
                let isInterrupted = state.withLockedValue { state in
                    state.waiters[number]?.file = file
                    return state.waiters[number]?.isInterrupted ?? true
                }
                if isInterrupted { return EINTR }
                file.locks.enqueue(.init(number: number, owner: owner, mode: mode))
                return nil
            }
            if let result { end(number, result) }
        } catch { end(number, error.rawValue) }
    }

    typealias Opening = () throws(Errno) -> (Descriptor, DescriptorShares.Share?)

    /// A signal came for a request: its wait ends with EINTR.
    func interrupt(_ number: UInt64) {
        let file = state.withLockedValue { state -> LockedFile? in
            state.waiters[number]?.isInterrupted = true
            return state.waiters[number]?.file
        }
        guard let file else { return }
        let hasWaited = file.lock.withLock {
            let hasWaited = file.locks.remove(number)
            conclude(file)
            return hasWaited
        }
        if hasWaited { end(number, EINTR) }
    }

    /// Gives up the lock of `owner`, if it has one.
    func release(_ key: ObjectIdentifier, by owner: ObjectIdentifier) {
        guard let file = state.withLockedValue({ $0.files[key] }) else { return }
        grantWaiting(file) { file, granted in file.locks.release(owner, granted: &granted, file.change) }
    }

    // MARK: Files

    /// Calls `body` with the file and its lock, and then answers those that were granted.
    private func with<Result>(
        _ key: ObjectIdentifier, _ open: Opening,
        _ body: (LockedFile, inout [Locks.Waiter]) -> Result
    ) throws(Errno) -> Result {
        while true {
            let file = try find(key, open)
            var result: Result?
            grantWaiting(file) { file, granted in result = body(file, &granted) }
            // Nil means that the file was removed from the table meanwhile.
            if let result { return result }
        }
    }

    private func find(_ key: ObjectIdentifier, _ open: Opening) throws(Errno) -> LockedFile {
        if let known = state.withLockedValue({ $0.files[key] }) { return known }
        let (lower, share) = try open()
        let new = LockedFile(key, lower, share)
        return state.withLockedValue { state in
            let file = state.files[key] ?? new
            state.files[key] = file
            return file
        }
    }

    private func grantWaiting(_ file: LockedFile, _ body: (LockedFile, inout [Locks.Waiter]) -> Void) {
        var granted: [Locks.Waiter] = []
        file.lock.withLock {
            if file.isGone { return }
            body(file, &granted)
            conclude(file)
        }
        for waiter in granted { end(waiter.number, 0) }
    }

    /// To be called with the file's lock. Removes an unused file from the table, and has the thread look after holders
    /// outside the mount.
    private func conclude(_ file: LockedFile) {
        if file.locks.isUnused && !file.isGone {
            file.isGone = true
            state.withLockedValue { $0.files[file.key] = nil }
        }
        let isOutside = file.locks.waitsForOutside && !file.isGone
        condition.lock()
        let isNew = isOutside && outside.isEmpty
        outside[file.key] = isOutside ? file : nil
        condition.unlock()
        if isNew { condition.broadcast() }
    }

    private func end(_ number: UInt64, _ result: Int32) {
        let waiter = state.withLockedValue { $0.waiters.removeValue(forKey: number) }
        waiter?.answer(result)
    }

    // MARK: Holders outside the mount

    /// Seconds between two tries. The pause is short at first, and longer for many files.
    private static let (minPause, maxPause, pausePerFile) = (0.002, 0.1, 0.0001)

    private func watch() {
        var pause = Self.minPause
        while true {
            condition.lock()
            if outside.isEmpty { pause = Self.minPause }
            while outside.isEmpty && !isStopped { condition.wait() }
            let end = ContinuousClock.now + .seconds(pause)
            while !isStopped && ContinuousClock.now < end {
                _ = condition.wait(seconds: (end - .now) / .seconds(1))
            }
            let files = Array(outside.values)
            let isEnd = isStopped
            condition.unlock()
            if isEnd { return }
            for file in files { grantWaiting(file) { file, granted in file.locks.grantWaiting(&granted, file.change) } }
            pause = max(min(pause * 1.5, Self.maxPause), Double(files.count) * Self.pausePerFile)
        }
    }
}
