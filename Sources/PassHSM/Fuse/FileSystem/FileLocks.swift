/// The flock(2) locks of one file among the users of the mount: their holders and their waiters, as the kernel keeps
/// them for a local file. The daemon's own lock on the lower file stands for all of them together.
///
/// A value without system calls. Its `lock` arguments try to change the daemon's lock on the lower file without
/// waiting, and return false when a holder outside the mount is in the way.
struct FileLocks<Owner: Hashable & Sendable>: Sendable {
    enum Mode: Sendable { case shared, exclusive }

    struct Waiter: Sendable {
        let number: UInt64
        let owner: Owner
        let mode: Mode
    }

    enum Answer: Equatable, Sendable {
        case granted
        /// Another holder's lock excludes it.
        case refused
    }

    private var holders: [Owner: Mode] = [:]
    /// In the order of their arrival.
    private var waiters: [Waiter] = []
    /// The daemon's lock on the lower file.
    private var lower: Mode?
    /// A holder outside the mount keeps a waiter waiting. The kernel does not notify the daemon when that changes.
    private(set) var waitsForOutside = false

    var isUnused: Bool { holders.isEmpty && waiters.isEmpty }

    /// Asks for a lock, which replaces the one that `owner` has. The old lock is lost even when the new one is refused
    /// (flock(2)). That may free the way for waiters; those that get their lock are appended to `granted`.
    mutating func acquire(
        _ mode: Mode, for owner: Owner, granted: inout [Waiter], _ lock: (Mode?) -> Bool
    ) -> Answer {
        if holders[owner] == mode { return .granted }
        // Earlier waiters have their turn first.
        if waitsForOutside { grantWaiting(&granted, lock) }
        let hadOne = holders.removeValue(forKey: owner) != nil
        if isFree(mode) && take(mode, lock) {
            holders[owner] = mode
            // After a downgrade other shared locks fit beside it.
            if hadOne { grantWaiting(&granted, lock) }
            return .granted
        }
        if hadOne { grantWaiting(&granted, lock) }
        return .refused
    }

    /// Puts `waiter` into the queue. To be called right after ``acquire(_:for:granted:_:)`` returned `refused`.
    mutating func enqueue(_ waiter: Waiter) {
        waiters.append(waiter)
        if isFree(waiter.mode) { waitsForOutside = true }
    }

    /// Takes a waiter out of the queue. Returns false when it no longer waits.
    mutating func remove(_ number: UInt64) -> Bool {
        guard let index = waiters.firstIndex(where: { $0.number == number }) else { return false }
        waiters.remove(at: index)
        return true
    }

    /// Gives up the lock of `owner`, and grants the waiting locks that fit now.
    mutating func release(_ owner: Owner, granted: inout [Waiter], _ lock: (Mode?) -> Bool) {
        if holders.removeValue(forKey: owner) != nil { grantWaiting(&granted, lock) }
    }

    /// Grants, in order, the waiting locks that no holder excludes.
    mutating func grantWaiting(_ granted: inout [Waiter], _ lock: (Mode?) -> Bool) {
        if holders.isEmpty && lower != nil {
            _ = lock(nil)
            lower = nil
        }
        waitsForOutside = false
        var refused: Set<Mode> = []
        var rest: [Waiter] = []
        for (index, waiter) in waiters.enumerated() {
            if holders.count == 1, holders.first?.value == .exclusive {
                rest += waiters[index...]
                break
            }
            guard isFree(waiter.mode), !refused.contains(waiter.mode) else {
                rest.append(waiter)
                continue
            }
            if take(waiter.mode, lock) {
                holders[waiter.owner] = waiter.mode
                granted.append(waiter)
            } else {
                refused.insert(waiter.mode)
                waitsForOutside = true
                rest.append(waiter)
            }
        }
        waiters = rest
    }

    /// Whether no holder among the users of the mount excludes `mode`.
    private func isFree(_ mode: Mode) -> Bool {
        switch mode {
        case .exclusive: holders.isEmpty
        case .shared: holders.values.allSatisfy { $0 == .shared }
        }
    }

    private mutating func take(_ mode: Mode, _ lock: (Mode?) -> Bool) -> Bool {
        if lower == mode { return true }
        // The kernel gives up the old lock before it looks for a lock that excludes the new one (fs/locks.c).
        lower = lock(mode) ? mode : nil
        return lower != nil
    }
}
