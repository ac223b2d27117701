import Glibc
import HSMSystem
import Synchronization

/// Shares the daemon's descriptors among the users for whom it keeps some open. No user gets more descriptors than are
/// left for all the others. A reserve is kept for the work itself, such as fills, the control socket and lookups.
///
/// The lowest quarter is not counted, so that a usual open needs no look at the caller. Safe on every thread.
final class DescriptorShares: Sendable {
    /// Descriptors from this number on are the reserve. The kernel always gives a new descriptor the lowest free
    /// number.
    let limit: Int32
    /// Descriptors below this number are not counted.
    private let uncounted: Int32
    /// How many counted descriptors each user has. A leaf lock.
    private let taken = Mutex<[uid_t: Int]>([:])
    /// The machine's root and the daemon's own user. They may take all descriptors that are left.
    private let privileged: Set<uid_t>

    /// Counts a descriptor as a user's for as long as this object lives.
    final class Share: Sendable {
        private let shares: DescriptorShares
        private let user: uid_t

        fileprivate init(_ shares: DescriptorShares, _ user: uid_t) { (self.shares, self.user) = (shares, user) }

        deinit {
            shares.taken.withLock { taken in
                let count = taken[user, default: 0] - 1
                taken[user] = count > 0 ? count : nil
            }
        }
    }

    /// - Parameter limit: the number of descriptors that the process may have.
    init(limit: Int, privileged: Set<uid_t> = [0, geteuid()]) {
        self.limit = Int32(clamping: limit - Capabilities.descriptorReserve(limit: limit))
        uncounted = self.limit / 4
        self.privileged = privileged
    }

    /// Whether `descriptor`, which was just opened, may be kept without being counted.
    func isUncounted(_ descriptor: Descriptor) -> Bool { descriptor.raw < uncounted }

    /// Counts `descriptor`, which was just opened and is to be kept, as one of `user`'s. Returns nil when it need not
    /// be counted (``isUncounted(_:)``).
    ///
    /// - Throws: EMFILE when the user already has as many as are left, or when none is left.
    func take(_ descriptor: Descriptor, for user: @autoclosure () -> uid_t) throws(Errno) -> Share? {
        if isUncounted(descriptor) { return nil }
        let left = Int(limit - descriptor.raw)
        guard left > 0 else { throw Errno(rawValue: EMFILE) }
        let user = user()
        let isTaken = taken.withLock { taken in
            let own = taken[user, default: 0]
            guard own < left || privileged.contains(user) else { return false }
            taken[user] = own + 1
            return true
        }
        if !isTaken { throw Errno(rawValue: EMFILE) }
        return Share(self, user)
    }
}
