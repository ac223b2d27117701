import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Files whose remote copy has changed: with `--on-change refetch` they are taken to the new version, as a whole and only
/// while nobody has them open, so that no reader ever gets bytes of two versions.
extension FileSystem {
    /// How long an open waits for the remote to tell what it has.
    private static let lookUpPatience = Duration.seconds(2)

    /// The record of a file that nobody has open, when the remote is to be asked what it has now before it is opened: it is
    /// known to have changed, or the open itself fetches nothing that would show it.
    func renewable(_ inode: Inode) -> Record? {
        guard options.onChange == .refetch, inode.isRegular else { return nil }
        let (isFree, file) = inode.state.withLock { state in
            (state.cachedOpens == 0 && state.users == 0 && state.isIncomplete, state.file)
        }
        guard isFree else { return nil }
        // Without a record that can be believed the open fails by itself.
        let record =
            file?.stored.record ?? (try? open(inode, PASSHSM_O_PATH)).flatMap { (try? store.record(of: $0)) ?? nil }
        guard let record, !record.isComplete, !record.flags.contains(.dirty) else { return nil }
        return record.flags.contains(.stale) || !fillsAtOpen(size: record.limit) ? record : nil
    }

    /// Asks the remote what it has now, takes the file to it, and continues with `then`, which goes on with whatever the
    /// file is by then.
    func renew(
        _ inode: Inode, _ record: Record, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) {
        let ticket = self.ticket(reply, nil, then)
        engine.lookUp(record.object.key, ticket: ticket, patience: Self.lookUpPatience) {
            [self] object, modified throws(FillError) in
            let isSame = engine.source.agrees(record.object, with: object, isMoved: false)
            if isSame && !record.flags.contains(.stale) { return }
            if let file = inode.state.withLock(\.file) { Self.awaitIdle(file) }
            let isNew: Bool
            do throws(Errno) {
                isNew = try transition(inode) { () throws(Errno) in try renewLocked(inode, object, modified) }
            } catch {
                throw FillError(lowerErrno: error, "taking the file to its new version")
            }
            if isNew { invalidate.withLock { $0 }?.call(inode.node, .all) }
        }
    }

    /// The fetches of a fill that failed are being cancelled. One that does not end leaves the old version.
    private static func awaitIdle(_ file: IncompleteFile) {
        for _ in 0..<200 where !file.fill.isIdle { usleep(5000) }
    }

    /// False when the file is in use after all, or is the remote's version already.
    private func renewLocked(
        _ inode: Inode, _ object: RemoteObject, _ modified: RemoteEntry.Time
    ) throws(Errno) -> Bool {
        if let file = inode.state.withLock(\.file) {
            try file.stored.commit()
            settleLocked(inode, file)
        }
        // Whoever opens it from here on waits for the transition.
        let isFree = inode.state.withLock { state in
            state.file == nil && state.users == 0 && state.cachedOpens == 0 && state.passthroughOpens == 0
        }
        guard isFree else { return false }
        let lower = try open(inode, O_RDWR)
        guard try store.renew(lower, object, modified: modified) else { return false }
        let residence = store.residence(of: lower)
        inode.state.withLock { state in
            state.residence = residence
            state.pages?.areStale = true
            state.change = nil
        }
        return true
    }
}
