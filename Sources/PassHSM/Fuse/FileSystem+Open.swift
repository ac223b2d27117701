import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// OPEN: which files the kernel may read and write by itself, and when.
extension FileSystem {
    /// An open on its way to its answer.
    struct Opening: Sendable {
        let inode: Inode
        let flags: Int32
        let caller: CallerUser
        /// Set for CREATE: the answer carries the entry too.
        var entry: Entry?
        /// Set when the file was just made: it is open already.
        var created: Descriptor?
        /// What it is counted as.
        var share: DescriptorShares.Share?
        /// A truncation takes setuid and setgid away: set for the caller of an OPEN or CREATE who has no CAP_FSETID.
        var unprivileged: pid_t?
        var isTruncated = false
        var isFilled = false
        var isRenewed = false

        var isForWriting: Bool { flags & O_ACCMODE != O_RDONLY }
        var truncates: Bool { flags & O_TRUNC != 0 && !isTruncated }
    }

    func open(_ reply: consuming Reply, _ node: fuse_ino_t, flags: Int32, _ requestFlags: UInt32) {
        let caller = requestFlags & PASSHSM_OPEN_KILL_SUIDGID != 0 ? reply.caller.pid : nil
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            proceed(reply, Opening(inode: try inode(node), flags: flags, caller: user, unprivileged: caller))
        } catch { reply.error(error) }
    }

    /// Takes the next step of an open; comes back after each wait.
    func proceed(_ reply: consuming Reply, _ opening: Opening) {
        do throws(Errno) {
            if !opening.truncates && !opening.isForWriting, let answer = fastAnswer(opening) {
                return send(answer, opening, reply)
            }
            if !opening.isRenewed, !opening.truncates, let record = renewable(opening.inode) {
                return renewFirst(reply, opening, record)
            }
            guard let file = try use(opening.inode, for: opening.caller) else {
                try Failpoint.reach("open.complete")
                guard let answer = try openComplete(opening) else { return proceed(reply, opening) }
                return send(answer, opening, reply)
            }
            if opening.truncates {
                return truncateFirst(reply, opening, file)
            }
            if !file.fill.isComplete && !opening.isFilled && fillsAtOpen(file) {
                let whole = 0..<file.fill.layout.limit
                return whenResident(whole, of: file, PendingReply(reply)) { [self] reply, error in
                    if let error, error.comesAtOnce {
                        fail(opening, Errno(error), reply)
                        return endUseLater(opening.inode)
                    }
                    endUse(opening.inode)
                    if let error {
                        if error.reason == .remoteChanged, !opening.isRenewed, let record = renewable(opening.inode) {
                            return renewFirst(reply, opening, record)
                        }
                        return fail(opening, Errno(error), reply)
                    }
                    var opening = opening
                    opening.isFilled = true
                    proceed(reply, opening)
                }
            }
            defer { endUse(opening.inode) }
            send(try openInUse(opening, file), opening, reply)
        } catch { fail(opening, error, reply) }
    }

    /// A remote that cannot tell what it has now leaves the file as it is, with what is present.
    private func renewFirst(_ reply: consuming Reply, _ opening: Opening, _ record: Record) {
        renew(opening.inode, record, PendingReply(reply)) { [self] reply, error in
            if let error, error.comesAtOnce {
                return fail(opening, Errno(error), reply)
            }
            var opening = opening
            opening.isRenewed = true
            proceed(reply, opening)
        }
    }

    private func fillsAtOpen(_ file: IncompleteFile) -> Bool {
        if file.isReadOnly { return false }
        if options.isStrict { return !file.fill.isRefused }
        return fillsAtOpen(size: file.fill.layout.limit)
    }

    /// - Parameter size: bytes of the file that come from the remote.
    func fillsAtOpen(size: Int) -> Bool {
        switch options.fill {
        case .open: true
        case .read: options.isStrict
        case .auto: options.isStrict || size <= engine.source.fetchUnit
        }
    }

    private func truncateFirst(_ reply: consuming Reply, _ opening: Opening, _ file: IncompleteFile) {
        truncate(opening.inode, file, to: 0, PendingReply(reply)) { [self] reply, error in
            if let error {
                fail(opening, error, reply)
                return endUseLater(opening.inode)
            }
            endUse(opening.inode)
            var opening = opening
            opening.isTruncated = true
            do throws(Errno) {
                if let caller = opening.unprivileged {
                    try clearSetIDs(open(opening.inode, PASSHSM_O_PATH), caller)
                }
                proceed(reply, opening)
            } catch { fail(opening, error, reply) }
        }
    }

    private func fail(_ opening: Opening, _ error: Errno, _ reply: consuming Reply) {
        reply.error(error)
        if let entry = opening.entry { forget(entry.inode, 1) }
    }

    // MARK: The answer

    private struct Answer {
        let mode: OpenFile.Mode
        var backingID: Int32 = 0
        /// For a cached handle: the lower file, shared with others.
        var lower: Descriptor?
        /// The inode is append-only, so that the lower file too opens with O_APPEND only.
        var isAppendOnly = false
    }

    /// The answer for a complete and registered file that is opened for reading: from memory alone.
    private func fastAnswer(_ opening: Opening) -> Answer? {
        opening.inode.state.withLock { state in
            switch state.residence {
            case .local, .dual: break
            case .incomplete, .unknown: return nil
            }
            guard state.backingID != 0, state.cachedOpens == 0 else { return nil }
            state.passthroughOpens += 1
            state.wasUsed = true
            return Answer(mode: .passthrough, backingID: state.backingID)
        }
    }

    /// A file that is complete on disk; nil when it was released meanwhile.
    private func openComplete(_ opening: Opening) throws(Errno) -> Answer? {
        try transition(opening.inode) { () throws(Errno) in
            if opening.inode.state.withLock(\.isIncomplete) { return nil }
            return try openCompleteLocked(opening)
        }
    }

    private func openCompleteLocked(_ opening: Opening) throws(Errno) -> Answer {
        let inode = opening.inode
        var lower = opening.created
        func file() throws(Errno) -> Descriptor {
            if let lower { return lower }
            let opened = try open(inode, lowerFlags(opening.flags))
            lower = opened
            return opened
        }
        let isDual = inode.state.withLock { state in
            if case .dual(let flags) = state.residence { return !flags.contains(.dirty) }
            return false
        }
        var isAppendOnly = false
        if (opening.isForWriting || opening.truncates) && opening.created == nil {
            if opening.isForWriting {
                // Always, because the lower file system may refuse it: immutable, append-only, being executed.
                do throws(Errno) { _ = try file() } catch {
                    guard error.rawValue == EPERM, opening.flags & O_APPEND != 0 else { throw error }
                    lower = try open(inode, lowerFlags(opening.flags) | O_APPEND)
                    isAppendOnly = true
                }
            }
            // O_TRUNC works with O_RDONLY too.
            let writable = try opening.isForWriting ? file() : open(inode, O_WRONLY)
            if isDual {
                let before = try writable.stat().st_ctim
                let mark = try store.markDirty(writable)
                let after = try writable.stat().st_ctim
                inode.state.withLock { state in
                    state.beginOwnChange(at: before)
                    state.endOwnChange(at: after)
                    if case .dual(let flags) = state.residence { state.residence = .dual(flags.union(.dirty)) }
                    state.dirtyMark = mark
                }
                if mark != nil { inodes.watch(inode) }
            }
            if opening.truncates {
                inode.state.withLock { $0.dirtyMark = nil }
                try writable.truncate(to: 0)
                if let caller = opening.unprivileged { try clearSetIDs(writable, caller) }
            }
        }
        if var answer = passthroughLocked(inode) {
            answer.isAppendOnly = isAppendOnly
            if opening.isForWriting { inode.state.withLock { $0.writers += 1 } }
            return answer
        }
        return try cachedLocked(opening, file(), isAppendOnly)
    }

    /// A passthrough answer where the kernel takes one: no cached handle is open, and the file can be registered.
    private func passthroughLocked(_ inode: Inode) -> Answer? {
        guard let backing = backing.withLock({ $0 }) else { return nil }
        var (id, isFree) = inode.state.withLock { ($0.backingID, $0.cachedOpens == 0) }
        guard isFree else { return nil }
        if id == 0 {
            // O_PATH: the kernel keeps what is registered, and a descriptor for writing would look like a writer for as long.
            do throws(Errno) { id = try backing.register(inode, open(inode, PASSHSM_O_PATH)) } catch {
                log.debug("a file cannot be registered for passthrough: \(error.text)")
                return nil
            }
        }
        return inode.state.withLock { state in
            guard state.backingID == id, state.cachedOpens == 0 else { return nil }
            state.passthroughOpens += 1
            state.wasUsed = true
            state.pages?.areStale = true
            return Answer(mode: .passthrough, backingID: id)
        }
    }

    private func cachedLocked(
        _ opening: Opening, _ lower: Descriptor, _ isAppendOnly: Bool = false
    ) throws(Errno) -> Answer {
        let flags = lowerFlags(opening.flags) | (isAppendOnly ? O_APPEND : 0)
        let isCounted = opening.inode.state.withLock { state in
            state.shared[flags]?.descriptor != nil || state.file?.stored.lower === lower
        }
        var share = opening.share
        if !isCounted && share == nil { share = try shares.take(lower, for: opening.caller.user) }
        try openPagesLocked(opening.inode, lower)
        let answer = try opening.inode.state.withLock { state throws(Errno) in
            // Cannot be: passthrough is refused only while cached handles are open, or never was agreed.
            if state.passthroughOpens > 0 { throw Errno(rawValue: EBUSY) }
            let known = state.shared[flags]?.descriptor
            if known == nil && lower.raw >= shares.limit { throw Errno(rawValue: EMFILE) }
            if let share { state.shares.append(share) }
            let shared = known ?? lower
            state.shared[flags] = .init(descriptor: shared)
            state.cachedOpens += 1
            if opening.isForWriting { state.writers += 1 }
            return Answer(mode: .cached, lower: shared, isAppendOnly: isAppendOnly)
        }
        inodes.watch(opening.inode)
        return answer
    }

    /// A file that is not recorded as complete. When its content is all there, it is made so first if that is needed.
    private func openInUse(_ opening: Opening, _ file: IncompleteFile) throws(Errno) -> Answer {
        let inode = opening.inode
        return try transition(inode) { () throws(Errno) in
            if file.fill.isComplete && inode.state.withLock({ $0.cachedOpens == 0 }) {
                if opening.isForWriting {
                    // Writes through passthrough are not seen here: the record has to say dirty before, and only a
                    // finished one can. The engine may not have told the store yet that everything is there.
                    file.stored.contentComplete()
                    try file.stored.commit()
                    settleLocked(inode, file)
                    if inode.state.withLock({ $0.file == nil }) { return try openCompleteLocked(opening) }
                } else if let answer = passthroughLocked(inode) {
                    return answer
                }
            }
            // The lower file system may refuse it: immutable, being executed. The handle uses the file's one descriptor, but for
            // O_SYNC.
            let lower = try open(inode, lowerFlags(opening.flags))
            let shares = opening.flags & (O_SYNC | O_DSYNC) == 0
            return try cachedLocked(opening, shares ? file.stored.lower : lower)
        }
    }

    /// The flags for the lower file: creation and truncation are dealt with, offsets are the kernel's, and direct I/O on the
    /// lower file would demand alignment of the daemon.
    private func lowerFlags(_ flags: Int32) -> Int32 {
        flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NOFOLLOW | PASSHSM_O_DIRECT | O_NONBLOCK)
    }

    private func send(_ answer: Answer, _ opening: Opening, _ reply: consuming Reply) {
        guard answer.mode == .cached else { return deliver(answer, opening, reply) }
        let reply = PendingReply(reply)
        whenPagesAreDropped(opening.inode) { [self] in
            if let reply = reply.take() { deliver(answer, opening, reply) }
        }
    }

    private func deliver(_ answer: Answer, _ opening: Opening, _ reply: consuming Reply) {
        let append = answer.isAppendOnly ? O_APPEND : 0
        let handle = OpenFile(
            inode: opening.inode, mode: answer.mode, flags: lowerFlags(opening.flags) | append,
            shared: answer.mode == .cached ? answer.lower : nil)
        if handle.canBeMapped { noteMapper(opening.inode, isNew: opening.created != nil) }
        let number: UInt64
        do throws(Errno) { number = try openFiles.insert(handle, handle.openMode, of: handle.inode.node) } catch {
            ended(handle)
            return fail(opening, error, reply)
        }
        openHandles.add(1)
        var out = passhsm_open_out(fh: number, open_flags: 0, backing_id: answer.backingID)
        switch answer.mode {
        case .passthrough: out.open_flags = PASSHSM_FOPEN_PASSTHROUGH | PASSHSM_FOPEN_NOFLUSH
        // Pages that have to go are gone: the kernel would drop them while others write.
        case .cached: out.open_flags = UInt32(FOPEN_KEEP_CACHE)
        }
        let wasTaken: Bool
        if var entry = opening.entry {
            entry.parameters.attr_timeout = attributeTimeout(opening.inode)
            var both = passhsm_create_out()
            both.open = out
            passhsm_fill_entry(&both.entry, entry.parameters)
            wasTaken = reply.create(both)
            if !wasTaken { forget(entry.inode, 1) }
        } else {
            wasTaken = reply.open(out)
        }
        if !wasTaken { close(number) }
    }
}
