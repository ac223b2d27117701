import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Files whose remote copy has changed: they can be taken to the new version, as a whole and only while nobody has them open,
/// so that no reader ever gets bytes of two versions.
extension ManagedFiles {
    /// The record of an incomplete file without local changes that nobody uses; nil for any other.
    package func refetchable(_ file: File) -> Record? {
        let (isFree, content) = file.withState { state in
            let lifecycle = state.lifecycle
            return (
                lifecycle.handles.served == 0 && lifecycle.leases == 0 && lifecycle.isIncomplete, lifecycle.content
            )
        }
        guard isFree else { return nil }
        // Without a record that can be believed the open fails by itself.
        let record =
            content?.stored.record
            ?? (try? observer.open(file, PASSHSM_O_PATH)).flatMap { (try? store.record(of: $0)) ?? nil }
        guard let record, !record.isComplete, !record.flags.contains(.dirty) else { return nil }
        return record
    }

    /// Takes a file with `record` to the version that the remote has now. Nothing is done when it is that version's already,
    /// or in use after all.
    package func refetch(
        _ file: File, _ record: Record, _ object: RemoteObject, modified: RemoteEntry.Time
    ) throws(FillError) {
        let isSame = engine.source.agrees(record.object, with: object, isMoved: false)
        if isSame && !record.flags.contains(.stale) { return }
        if let content = file.content { Self.awaitIdle(content) }
        let isNew: Bool
        do throws(Errno) {
            isNew = try transition(file) { () throws(Errno) in try refetchLocked(file, object, modified) }
        } catch {
            throw FillError(lowerErrno: error, "taking the file to its new version")
        }
        if isNew { observer.forgetPages(of: file) }
    }

    /// The fetches of a fill that failed are being cancelled. One that does not end leaves the old version.
    private static func awaitIdle(_ content: IncompleteFile) {
        for _ in 0..<200 where !content.fill.isIdle { usleep(5000) }
    }

    /// False when the file is in use after all, or is the remote's version already.
    private func refetchLocked(
        _ file: File, _ object: RemoteObject, _ modified: RemoteEntry.Time
    ) throws(Errno) -> Bool {
        if let content = file.content {
            try content.stored.commit()
            _ = deactivateLocked(file, content)
        }
        // Whoever opens it from here on waits for the transition.
        guard file.withState({ $0.lifecycle.isUnused }) else { return false }
        let lower = try observer.open(file, O_RDWR)
        guard try store.renew(lower, object, modified: modified) else { return false }
        let residence = store.residence(of: lower)
        file.withState { $0.lifecycle.note(residence) }
        observer.didRefetch(file)
        return true
    }
}
