import Glibc
import HSMStore
import HSMSystem

/// Marks complete files dirty before they are changed, and takes the marks of unchanged files back.
extension ManagedFiles {
    /// Marks a complete file dirty, durably, before it can be changed. `lower` is open on it, not with O_PATH.
    ///
    /// - Parameter isForGood: the file was changed already, so the mark is not taken back.
    /// - Returns: whether the mark can be taken back.
    /// - Throws: as ``Store/markDirty(_:)``.
    package func markDirtyLocked(_ file: File, _ lower: Descriptor, isForGood: Bool = false) throws(Errno) -> Bool {
        let before = try lower.stat().st_ctim
        let mark = try isForGood ? store.markDirtyForGood(lower) : store.markDirty(lower)
        let after = try lower.stat().st_ctim
        file.withState { state in
            state.beginOwnChange(at: before)
            state.endOwnChange(at: after)
            state.lifecycle.becomeDirty(mark)
        }
        return mark != nil
    }

    /// Takes back the dirty flag of a file that was opened for writing and not written.
    package func unmark(_ file: File) {
        transition(file) { unmarkLocked(file) }
        observer.noLongerUsed(file)
    }

    private func unmarkLocked(_ file: File) {
        guard file.withState({ $0.lifecycle.returnableMark }) != nil else { return }
        let opened = try? observer.open(file, O_RDONLY)
        // A mapping of the lower file outlives its handle, so ``sweep(_:)`` asks again. A user who opens the file for
        // writing from here on waits for this lock.
        if let opened, store.isOpenForWriting(opened) { return }
        let taken = file.withState { $0.lifecycle.takeMark() }
        guard let lower = opened, let mark = taken else { return }
        guard let before = try? lower.stat().st_ctim, (try? store.unmarkDirty(lower, mark)) == true else {
            return observer.didStayDirty(file, lower)
        }
        guard let after = try? lower.stat().st_ctim else { return }
        file.withState { state in
            state.beginOwnChange(at: before)
            state.endOwnChange(at: after)
            state.lifecycle.becomeClean()
        }
    }
}
