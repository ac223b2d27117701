import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// Switches files to the new version of a changed remote copy. A file switches as a whole, and only while no user has
/// it open, so that no reader ever gets bytes of two versions.
extension ManagedFiles {
    /// The record of an unused incomplete file without local changes; nil for any other file.
    package func refetchable(_ file: File) -> Record? {
        let (isFree, content) = file.withState { state in
            let lifecycle = state.lifecycle
            return (
                lifecycle.handles.served == 0 && lifecycle.leases == 0 && lifecycle.isIncomplete, lifecycle.content
            )
        }
        guard isFree else { return nil }
        // If the record cannot be believed, the open fails by itself.
        let record =
            content?.stored.record
            ?? (try? observer.open(file, PASSHSM_O_PATH)).flatMap { (try? store.record(of: $0)) ?? nil }
        guard let record, !record.isComplete, !record.flags.contains(.dirty) else { return nil }
        return record
    }

    /// Switches a file with `record` to the remote's current version. Does nothing when the file has that version
    /// already, or is in use after all.
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

    /// Waits about a second for the end of fetches: those of a failed fill are being cancelled. If a fetch does not
    /// end, the file keeps the old version.
    private static func awaitIdle(_ content: IncompleteFile) {
        for _ in 0..<200 where !content.fill.isIdle { usleep(5000) }
    }

    /// False when the file is in use after all, or has the remote's version already.
    private func refetchLocked(
        _ file: File, _ object: RemoteObject, _ modified: RemoteEntry.Time
    ) throws(Errno) -> Bool {
        if let content = file.content {
            try content.stored.commit()
            _ = deactivateLocked(file, content)
        }
        // An open from here on waits for the transition lock.
        guard file.withState({ $0.lifecycle.isUnused }) else { return false }
        let lower = try observer.open(file, O_RDWR)
        guard try store.refetch(lower, object, modified: modified) else { return false }
        let residence = store.residence(of: lower)
        file.withState { $0.lifecycle.note(residence) }
        observer.didRefetch(file)
        return true
    }
}
