import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// What the control socket asks for: giving up the content of files, pinning them, and filling them whole.
///
/// Called on threads that may block, with a descriptor (O_PATH) of a file in the lower tree.
extension FileSystem {
    /// Calls `body` with the known inode of `file`.
    func withInode<Result>(
        of file: Descriptor, _ body: (Inode) throws(Refusal) -> Result
    ) throws(Refusal) -> Result {
        let inode = try referenceRegular(file)
        defer { forget(inode, 1) }
        return try body(inode)
    }

    /// With one more reference.
    private func referenceRegular(_ file: Descriptor) throws(Refusal) -> Inode {
        let inode: Inode
        do throws(Errno) { inode = try reference(file).inode } catch { throw Refusal("looking it up: \(error.text)") }
        if inode.isRegular { return inode }
        forget(inode, 1)
        throw Refusal("it is not a regular file")
    }

    /// Everything that is known of a file is on disk, and nobody uses it, when this returns.
    func putDown(_ inode: Inode) throws(Refusal) {
        try expectUnused(inode)
        try transition(inode) { () throws(Refusal) in try putDownLocked(inode) }
    }

    private func expectUnused(_ inode: Inode) throws(Refusal) {
        let (isUsed, file) = inode.state.withLock { state in
            (state.users > 0 || state.cachedOpens > 0 || state.passthroughOpens > 0, state.file)
        }
        if isUsed || file?.fill.isIdle == false { throw Refusal("it is open, or being filled", isBusy: true) }
    }

    /// Makes a file offline of which the remote was just found to have what `expected` says; the bytes that were freed.
    func release(_ inode: Inode, expecting expected: Record) throws(Refusal) -> Int {
        try transition(inode) { () throws(Refusal) in
            try putDownLocked(inode)
            let lower: Descriptor
            let changed: timespec
            do throws(Errno) {
                lower = try open(inode, O_RDWR)
                changed = try lower.stat().st_ctim
            } catch { throw Refusal("opening it: \(error.text)", isBusy: error.rawValue == ETXTBSY) }
            let record = try store.releasable(lower)
            // From here on it is opened as an incomplete file, which waits for this transition.
            let isFree = inode.state.withLock { state in
                guard state.file == nil, state.users == 0, state.cachedOpens == 0, state.passthroughOpens == 0 else {
                    return false
                }
                state.beginOwnChange(at: changed)
                state.residence = .incomplete(.releasing, record.flags, modified: record.modified)
                return true
            }
            guard isFree else { throw Refusal("it is open", isBusy: true) }
            defer { noteOwnChange(inode, lower) }
            return try store.release(lower, expecting: expected)
        }
    }

    /// An incomplete file that nobody uses has everything on disk, and is no longer in use, when this returns.
    private func putDownLocked(_ inode: Inode) throws(Refusal) {
        let file = inode.state.withLock(\.file)
        guard let file else { return }
        try expectUnused(inode)
        do throws(Errno) { try file.stored.commit() } catch { throw Refusal("writing its record: \(error.text)") }
        settleLocked(inode, file)
        if inode.state.withLock({ $0.file != nil }) { throw Refusal("it is being filled", isBusy: true) }
    }

    /// Takes over what the daemon has just written to the record of a file that is not in use.
    private func noteOwnChange(_ inode: Inode, _ lower: Descriptor) {
        let residence = store.residence(of: lower)
        let changed = try? lower.stat().st_ctim
        inode.state.withLock { state in
            state.residence = residence
            if let changed { state.endOwnChange(at: changed) }
        }
    }

    func setPinned(_ isPinned: Bool, _ inode: Inode) throws(Refusal) {
        try transition(inode) { () throws(Refusal) in
            do throws(Errno) {
                if let file = inode.state.withLock(\.file) { return try file.stored.setPinned(isPinned) }
            } catch { throw Refusal("writing its record: \(error.text)") }
            let lower: Descriptor
            let before: stat
            do throws(Errno) {
                lower = try open(inode, O_RDONLY)
                before = try lower.stat()
            } catch { throw Refusal("opening it: \(error.text)") }
            inode.state.withLock { $0.beginOwnChange(at: before.st_ctim) }
            defer { noteOwnChange(inode, lower) }
            try store.setPinned(isPinned, lower)
            guard let after = try? lower.stat() else { return }
            inode.state.withLock { $0.dirtyMark = $0.dirtyMark?.kept(before: before, after: after) }
        }
    }

    /// Fills a file whole; see ``FuseMount/recall(_:_:)``.
    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        let inode = try referenceRegular(file)
        defer { forget(inode, 1) }
        let used: IncompleteFile?
        do throws(Errno) { used = try use(inode) } catch { throw Refusal("using it: \(error.text)") }
        guard let used else { return }
        defer { endUse(inode) }
        try await used.recall(by: engine, progress)
    }
}
