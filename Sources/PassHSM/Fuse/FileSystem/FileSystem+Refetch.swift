import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem

/// Files whose remote copy has changed. With `--on-change refetch` a file switches to the new version, as a whole and
/// only while it is not open, so that no reader ever gets bytes of two versions.
extension FileSystem {
    /// How long an open waits for the remote's answer about its current version.
    private static let lookUpTimeout = Duration.seconds(2)

    /// The record of a file that is not open, when the remote is to be asked for its current version before the open.
    /// That is so when the file is known to have changed, or when the open itself fetches nothing that would show a
    /// change. Nil otherwise.
    func refetchable(_ inode: Inode) -> Record? {
        guard options.onChange == .refetch, inode.isRegular, let record = files.refetchable(inode) else { return nil }
        return record.flags.contains(.stale) || !fillsAtOpen(size: record.limit) ? record : nil
    }

    /// Asks the remote for its current version and switches the file to it. Then calls `then`, which continues with the
    /// file in whatever state it is by then.
    func refetch(
        _ inode: Inode, _ record: Record, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) {
        let waiter = self.waiter(reply, nil, then)
        engine.lookUp(record.object.key, waiter: waiter, timeout: Self.lookUpTimeout) {
            [files] object, modified throws(FillError) in
            try files.refetch(inode, record, object, modified: modified)
        }
    }
}
