import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMFuseDoor
import HSMStore
import HSMSystem

/// OPEN: decides which files the kernel may read and write by itself, and when.
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
        /// The share of descriptors that counts `created`.
        var share: DescriptorShares.Share?
        /// The caller's thread, when the caller of the OPEN or CREATE has no CAP_FSETID: a truncation then takes setuid
        /// and setgid away.
        var unprivileged: pid_t?
        var isTruncated = false
        var isFilled = false
        var isRefetched = false

        var isForWriting: Bool { flags & O_ACCMODE != O_RDONLY }
        var truncates: Bool { flags & O_TRUNC != 0 && !isTruncated }
    }

    func open(_ reply: consuming Reply, _ node: UInt64, flags: Int32, dropsSetIDs: Bool) {
        let caller = dropsSetIDs ? reply.caller.thread : nil
        let user = CallerUser(reply.caller)
        do throws(Errno) {
            proceed(reply, Opening(inode: try inode(node), flags: flags, caller: user, unprivileged: caller))
        } catch { reply.error(error) }
    }

    /// Takes the next step of an open. Each wait calls it again.
    func proceed(_ reply: consuming Reply, _ opening: Opening) {
        do throws(Errno) {
            if !opening.truncates && !opening.isForWriting, let answer = answerFromMemory(opening) {
                return send(answer, opening, reply)
            }
            if !opening.isRefetched, !opening.truncates, let record = refetchable(opening.inode) {
                return refetchFirst(reply, opening, record)
            }
            guard let lease = try files.lease(opening.inode, for: opening.caller) else {
                try Failpoint.reach("open.complete")
                guard let answer = try openComplete(opening) else { return proceed(reply, opening) }
                return send(answer, opening, reply)
            }
            let file = lease.content
            if opening.truncates { return truncateFirst(reply, opening, lease) }
            if !file.fill.isComplete && !opening.isFilled && fillsAtOpen(file) {
                let whole = 0..<file.fill.layout.limit
                let held = HeldLease(lease)
                return whenResident(whole, of: file, PendingReply(reply)) { [self] reply, error in
                    if let error, error.comesAtOnce {
                        fail(opening, Errno(error), reply)
                        return held.endLater()
                    }
                    held.end()
                    if let error {
                        if error.reason == .remoteChanged, !opening.isRefetched,
                            let record = refetchable(opening.inode)
                        {
                            return refetchFirst(reply, opening, record)
                        }
                        return fail(opening, Errno(error), reply)
                    }
                    var opening = opening
                    opening.isFilled = true
                    proceed(reply, opening)
                }
            }
            send(try openActive(opening, file), opening, reply)
            lease.end()
        } catch { fail(opening, error, reply) }
    }

    /// Asks the remote for its current version before the open. If the remote cannot tell, the file stays as it is,
    /// with the bytes that are present.
    private func refetchFirst(_ reply: consuming Reply, _ opening: Opening, _ record: Record) {
        refetch(opening.inode, record, PendingReply(reply)) { [self] reply, error in
            if let error, error.comesAtOnce {
                return fail(opening, Errno(error), reply)
            }
            var opening = opening
            opening.isRefetched = true
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

    private func truncateFirst(
        _ reply: consuming Reply, _ opening: Opening, _ lease: consuming Lease<KnownInodes>
    ) {
        let file = lease.content
        let held = HeldLease(lease)
        truncate(opening.inode, file, to: 0, PendingReply(reply)) { [self] reply, error in
            if let error {
                fail(opening, error, reply)
                return held.endLater()
            }
            held.end()
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
        logStep(reply.number, opening.inode, "did not open it: \(error.text)")
        reply.error(error)
        if opening.entry != nil { forget(opening.inode, 1) }
    }

    // MARK: The answer

    private struct Answer {
        let mode: OpenFile.Mode
        var backingID: Int32 = 0
        /// The lower file, for a cached handle. Other handles share it.
        var lower: Descriptor?
        /// The inode is append-only, so the lower file opens only with O_APPEND too.
        var isAppendOnly = false
    }

    /// The answer for a complete and registered file that is opened for reading. It takes only memory, and no system
    /// call.
    private func answerFromMemory(_ opening: Opening) -> Answer? {
        opening.inode.state.withLock { state in
            guard state.lifecycle.isCompleteOnDisk, state.backing.id != 0, state.lifecycle.handles.served == 0 else {
                return nil
            }
            state.lifecycle.openHandle(isServed: false, isWritable: false)
            state.backing.wasUsed = true
            return Answer(mode: .passthrough, backingID: state.backing.id)
        }
    }

    /// Opens a file that is complete on disk. Returns nil when it was released meanwhile.
    private func openComplete(_ opening: Opening) throws(Errno) -> Answer? {
        try files.transition(opening.inode) { () throws(Errno) in
            if opening.inode.state.withLock(\.lifecycle.isIncomplete) { return nil }
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
        let isClean = inode.state.withLock(\.lifecycle.isClean)
        var isAppendOnly = false
        if (opening.isForWriting || opening.truncates) && opening.created == nil {
            if opening.isForWriting {
                // The lower file is always opened, because the lower file system may refuse it: immutable, append-only,
                // being executed.
                do throws(Errno) { _ = try file() } catch {
                    guard error.rawValue == EPERM, opening.flags & O_APPEND != 0 else { throw error }
                    lower = try open(inode, lowerFlags(opening.flags) | O_APPEND)
                    isAppendOnly = true
                }
            }
            // O_TRUNC also works with O_RDONLY.
            let writable = try opening.isForWriting ? file() : open(inode, O_WRONLY)
            if isClean, try files.markDirtyLocked(inode, writable) { inodes.watch(inode) }
            if opening.truncates {
                inode.state.withLock { $0.lifecycle.stayDirty() }
                try writable.truncate(to: 0)
                if let caller = opening.unprivileged { try clearSetIDs(writable, caller) }
            }
        }
        if var answer = passthroughLocked(inode, isWritable: opening.isForWriting) {
            answer.isAppendOnly = isAppendOnly
            return answer
        }
        return try cachedLocked(opening, file(), isAppendOnly)
    }

    /// A passthrough answer if the kernel takes one: no cached handle is open, and the file can be registered.
    private func passthroughLocked(_ inode: Inode, isWritable: Bool) -> Answer? {
        guard let backing = known.backing.withLock({ $0 }) else { return nil }
        var (id, isFree) = inode.state.withLock { ($0.backing.id, $0.lifecycle.handles.served == 0) }
        guard isFree else { return nil }
        if id == 0 {
            // O_PATH, because the kernel keeps what is registered: a descriptor for writing would look like a writer
            // for as long as that.
            do throws(Errno) { id = try backing.register(inode, open(inode, PASSHSM_O_PATH)) } catch {
                log.debug("a file cannot be registered for passthrough: \(error.text)")
                return nil
            }
        }
        return inode.state.withLock { state in
            guard state.backing.id == id, state.lifecycle.handles.served == 0 else { return nil }
            state.lifecycle.openHandle(isServed: false, isWritable: isWritable)
            state.backing.wasUsed = true
            state.pages?.areStale = true
            return Answer(mode: .passthrough, backingID: id)
        }
    }

    private func cachedLocked(
        _ opening: Opening, _ lower: Descriptor, _ isAppendOnly: Bool = false
    ) throws(Errno) -> Answer {
        let flags = lowerFlags(opening.flags) | (isAppendOnly ? O_APPEND : 0)
        let isCounted = opening.inode.state.withLock { state in
            state.descriptors.shared[flags]?.descriptor != nil || state.lifecycle.content?.stored.lower === lower
        }
        var share = opening.share
        if !isCounted && share == nil { share = try shares.take(lower, for: opening.caller.user) }
        try openPagesLocked(opening.inode, lower)
        let answer = try opening.inode.state.withLock { state throws(Errno) in
            // This cannot happen: passthrough is refused only while cached handles are open, or when it was never
            // agreed.
            if state.lifecycle.handles.direct > 0 { throw Errno(rawValue: EBUSY) }
            let known = state.descriptors.shared[flags]?.descriptor
            if known == nil && lower.raw >= shares.limit { throw Errno(rawValue: EMFILE) }
            if let share { state.descriptors.shares.append(share) }
            let shared = known ?? lower
            state.descriptors.shared[flags] = .init(descriptor: shared)
            state.lifecycle.openHandle(isServed: true, isWritable: opening.isForWriting)
            return Answer(mode: .cached, lower: shared, isAppendOnly: isAppendOnly)
        }
        inodes.watch(opening.inode)
        return answer
    }

    /// Opens a file that is not recorded as complete. When all its content is present, the file is first recorded as
    /// complete if the open needs that.
    private func openActive(_ opening: Opening, _ file: IncompleteFile) throws(Errno) -> Answer {
        let inode = opening.inode
        return try files.transition(inode) { () throws(Errno) in
            if file.fill.isComplete && inode.state.withLock({ $0.lifecycle.handles.served == 0 }) {
                if opening.isForWriting {
                    // The daemon does not see writes through passthrough. The record therefore has to say dirty before
                    // them, and only a finished record can.
                    if try files.finalizeLocked(inode, file) { return try openCompleteLocked(opening) }
                } else if let answer = passthroughLocked(inode, isWritable: false) {
                    return answer
                }
            }
            // The lower file is opened because the lower file system may refuse it: immutable, being executed. The
            // handle then uses the file's one descriptor, except with O_SYNC and O_DSYNC.
            let lower = try open(inode, lowerFlags(opening.flags))
            let shares = opening.flags & (O_SYNC | O_DSYNC) == 0
            return try cachedLocked(opening, shares ? file.stored.lower : lower)
        }
    }

    /// The flags for the lower file. Creation and truncation are already done. The kernel keeps the offsets. Direct I/O
    /// on the lower file would demand alignment of the daemon.
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
        logStep(reply.number, handle.inode, "opened it \(answer.mode == .cached ? "cached" : "in passthrough")")
        // Pages that had to be dropped are dropped already. The kernel must not drop pages while others write.
        let access: Opened.Access = answer.mode == .cached ? .cached : .passthrough(backingID: answer.backingID)
        let opened = Opened(handle: number, access: access)
        let wasTaken: Bool
        if var entry = opening.entry {
            entry.attributeTimeout = attributeTimeout(opening.inode)
            wasTaken = reply.create(entry, opened)
            if !wasTaken { forget(opening.inode, 1) }
        } else {
            wasTaken = reply.open(opened)
        }
        if !wasTaken { close(number) }
    }
}
