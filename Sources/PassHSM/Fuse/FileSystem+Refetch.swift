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
    func refetchable(_ inode: Inode) -> Record? {
        guard options.onChange == .refetch, inode.isRegular, let record = files.refetchable(inode) else { return nil }
        return record.flags.contains(.stale) || !fillsAtOpen(size: record.limit) ? record : nil
    }

    /// Asks the remote what it has now, takes the file to it, and continues with `then`, which goes on with whatever the
    /// file is by then.
    func refetch(
        _ inode: Inode, _ record: Record, _ reply: PendingReply,
        then: @escaping @Sendable (consuming Reply, FillError?) -> Void
    ) {
        let ticket = self.ticket(reply, nil, then)
        engine.lookUp(record.object.key, ticket: ticket, timeout: Self.lookUpPatience) {
            [files] object, modified throws(FillError) in
            try files.refetch(inode, record, object, modified: modified)
        }
    }
}
