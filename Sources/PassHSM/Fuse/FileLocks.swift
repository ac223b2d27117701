/// The flock(2) locks of one file among the users of the mount, as the kernel keeps them for a local file: who holds one,
/// and who waits. The daemon's own lock on the lower file stands for all of them together.
///
/// A value without system calls: `lock` tries to change the daemon's lock on the lower file without waiting, and answers
/// false when somebody outside the mount is in the way.
struct FileLocks<Owner: Hashable & Sendable>: Sendable {
    enum Mode: Sendable { case shared, exclusive }

    struct Waiter: Sendable {
        let number: UInt64
        let owner: Owner
        let mode: Mode
    }

    enum Answer: Equatable, Sendable {
        case granted
        /// Somebody has a lock that excludes it.
        case refused
    }

    private var holders: [Owner: Mode] = [:]
    /// In the order in which they came.
    private var waiters: [Waiter] = []
    /// What the daemon holds on the lower file.
    private var lower: Mode?
    /// Somebody outside the mount keeps a waiter waiting: nobody tells when that changes.
    private(set) var waitsForOutside = false

    var isUnused: Bool { holders.isEmpty && waiters.isEmpty }

    /// Asks for a lock, which replaces the one that `owner` has: that one is lost also when the new one is refused
    /// (flock(2)). Others may get theirs by that; they are appended to `granted`.
    mutating func acquire(
        _ mode: Mode, for owner: Owner, granted: inout [Waiter], _ lock: (Mode?) -> Bool
    ) -> Answer {
        if holders[owner] == mode { return .granted }
        // Those that came before have their turn.
        if waitsForOutside { settle(&granted, lock) }
        let hadOne = holders.removeValue(forKey: owner) != nil
        if isFree(mode) && take(mode, lock) {
            holders[owner] = mode
            // After a downgrade others fit beside it.
            if hadOne { settle(&granted, lock) }
            return .granted
        }
        if hadOne { settle(&granted, lock) }
        return .refused
    }

    /// Lets `waiter` wait; to be called right after ``acquire(_:for:granted:_:)`` was refused.
    mutating func enqueue(_ waiter: Waiter) {
        waiters.append(waiter)
        if isFree(waiter.mode) { waitsForOutside = true }
    }

    /// Takes a waiter out of the queue; false when it does not wait any more.
    mutating func remove(_ number: UInt64) -> Bool {
        guard let index = waiters.firstIndex(where: { $0.number == number }) else { return false }
        waiters.remove(at: index)
        return true
    }

    /// Gives up the lock of `owner`, and grants those that fit now.
    mutating func release(_ owner: Owner, granted: inout [Waiter], _ lock: (Mode?) -> Bool) {
        if holders.removeValue(forKey: owner) != nil { settle(&granted, lock) }
    }

    /// Grants, in order, the locks that nobody excludes.
    mutating func settle(_ granted: inout [Waiter], _ lock: (Mode?) -> Bool) {
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

    /// Among the users of the mount.
    private func isFree(_ mode: Mode) -> Bool {
        switch mode {
        case .exclusive: holders.isEmpty
        case .shared: holders.values.allSatisfy { $0 == .shared }
        }
    }

    private mutating func take(_ mode: Mode, _ lock: (Mode?) -> Bool) -> Bool {
        if lower == mode { return true }
        // The kernel gives up the old lock before it looks for one that excludes the new (fs/locks.c).
        lower = lock(mode) ? mode : nil
        return lower != nil
    }
}
