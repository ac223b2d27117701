import Glibc
import HSMCore
import HSMStore

/// The lifecycle of a managed file's content.
package typealias FileLifecycle = Lifecycle<IncompleteFile>

/// The state of one file in memory: its residence, whether its content is active, its numbers of leases and handles,
/// and whether it may have been changed.
///
/// Pure: its methods take facts and return decisions. It does no I/O, takes no lock and knows no front end. It is
/// guarded by its file's leaf lock; a method that says so is called under the transition lock too.
///
/// `Content` represents the content of an incomplete file while it is used: the file is then *active*.
package struct Lifecycle<Content: AnyObject & Sendable>: Sendable {
    /// From the file's record. Nil where the record is read each time, because users reach the lower file themselves.
    package private(set) var residence: Residence?
    /// Set while the file is active: from the first lease to the deactivation. A file never has two at once.
    package private(set) var content: Content?
    package private(set) var leases: Int32 = 0
    /// Counts the events that may leave something to record: beginnings and ends of leases, ends of handles, users'
    /// changes.
    private var uses: UInt32 = 0
    package private(set) var handles = Handles()
    private var returnable: ReturnableMark?
    private var keeping: Keeping?

    package init(_ residence: Residence?) { self.residence = residence }

    /// The front end's open handles, as it reports them.
    package struct Handles: Sendable {
        /// They read and write through the daemon, and need the content.
        package fileprivate(set) var served: Int32 = 0
        /// They reach the lower file without the daemon.
        package fileprivate(set) var direct: Int32 = 0
        /// Those of either kind that can write.
        package fileprivate(set) var writers: Int32 = 0

        package var areNone: Bool { served == 0 && direct == 0 }
    }

    /// An object, to keep the state small: most files never have a mark.
    private final class ReturnableMark: Sendable {
        let mark: DirtyMark

        init(_ mark: DirtyMark) { self.mark = mark }
    }

    /// The file still needs work, and only this state knows of it.
    package var isNeeded: Bool { content != nil || leases > 0 || returnable != nil }

    /// By its record. A file with a record that cannot be believed is neither complete nor incomplete.
    package var isIncomplete: Bool { if case .incomplete = residence { true } else { false } }

    /// The record says that the file is complete; the file may still be active.
    package var isCompleteOnDisk: Bool {
        switch residence {
        case .local, .dual: true
        case .incomplete, .unknown, nil: false
        }
    }

    /// The content is complete, and needs no more work.
    package var isComplete: Bool { content == nil && isCompleteOnDisk }

    /// The remote has the same content.
    package var isClean: Bool { if case .dual(let flags) = residence { !flags.contains(.dirty) } else { false } }

    /// Takes over the record's current residence, where one is kept.
    package mutating func note(_ new: Residence) { if residence != nil { residence = new } }

    // MARK: Leases

    /// The answer to a request for a lease.
    package enum Access {
        /// A lease on the active content.
        case leased(Content)
        /// Nothing is missing.
        case complete
        /// The caller has to load the content, and then to call ``Lifecycle/activate(_:)``.
        case load
        /// The record cannot be believed.
        case refused(RecordError)
    }

    package mutating func lease() -> Access {
        if let content = leaseActive() { return .leased(content) }
        switch residence {
        case .local, .dual: return .complete
        case .unknown(let error): return .refused(error)
        case .incomplete, nil: return .load
        }
    }

    /// As ``lease()``; nil when the file is not active.
    package mutating func leaseActive() -> Content? {
        guard let content else { return nil }
        leases += 1
        uses &+= 1
        return content
    }

    /// Under the transition lock: the content was loaded. It gets a lease, which the caller hands on.
    package mutating func activate(_ new: Content) {
        assert(content == nil)
        content = new
        _ = leaseActive()
    }

    package mutating func endLease() {
        leases -= 1
        uses &+= 1
    }

    /// A user changes the file without a lease. The content has to record the change, so a deactivation that began
    /// before the change must not succeed.
    package mutating func noteUserChange() { if content != nil { uses &+= 1 } }

    // MARK: Handles

    /// - Parameter isServed: the handle reads and writes through the daemon.
    package mutating func openHandle(isServed: Bool, isWritable: Bool) {
        if isServed { handles.served += 1 } else { handles.direct += 1 }
        if isWritable { handles.writers += 1 }
    }

    package mutating func closeHandle(isServed: Bool, isWritable: Bool) {
        if isServed { handles.served -= 1 } else { handles.direct -= 1 }
        if isWritable { handles.writers -= 1 }
        uses &+= 1
    }

    // MARK: Deactivation

    /// Facts about the active content that the lifecycle does not hold itself.
    package struct Facts {
        /// Its record is final, durably.
        package var isFinished: Bool
        /// Some of its changes are not on disk yet.
        package var hasPending: Bool
        /// No fetch is under way, and no request waits.
        package var isIdle: Bool

        package init(isFinished: Bool, hasPending: Bool, isIdle: Bool) {
            (self.isFinished, self.hasPending, self.isIdle) = (isFinished, hasPending, isIdle)
        }
    }

    /// The active content when neither a lease nor a handle needs it.
    package var unusedContent: Content? { leases == 0 && handles.served == 0 ? content : nil }

    /// The file is to stay active without leases while it is incomplete; see ``keepActive()``.
    package var isKeptActive: Bool { keeping != nil }

    /// Returns the `uses` for ``deactivate(_:_:since:_:)``. To be called before the facts are looked at.
    package func beginDeactivation() -> UInt32 { uses }

    /// Under the transition lock: deactivates the file when nothing needs `old`. Leases do not keep a finished content.
    ///
    /// - Parameters:
    ///   - facts: about `old`, looked at after ``beginDeactivation()`` had returned `uses`. Any use since then keeps
    ///     the content, also a use that had begun before and is over.
    ///   - new: the record's residence, read after the facts.
    /// - Returns: whether the file is no longer active.
    package mutating func deactivate(_ old: Content, _ facts: Facts, since uses: UInt32, _ new: Residence) -> Bool {
        guard facts.isFinished || (!facts.hasPending && facts.isIdle) else { return false }
        guard content === old, handles.served == 0 else { return false }
        guard facts.isFinished || (leases == 0 && uses == self.uses) else { return false }
        content = nil
        keeping = nil
        note(new)
        return true
    }

    // MARK: Keeping what is read by ranges

    /// A file is read by ranges, and no event tells when it is closed. Its content stays active until ``maxIdleSweeps``
    /// sweeps in a row have found no use, so that the engine recognises a reader that goes on.
    private struct Keeping: Sendable {
        /// ``Lifecycle/uses`` at the last sweep.
        var uses: UInt32?
        /// Sweeps in a row that found the same ``Lifecycle/uses``.
        var idleSweeps: UInt8 = 0
    }

    package static var maxIdleSweeps: Int { 10 }

    package mutating func keepActive() { keeping = keeping ?? Keeping() }

    package mutating func stopKeeping() { keeping = nil }

    /// To be called once a second. Returns what the caller should try with the file now.
    package mutating func sweep() -> (deactivates: Bool, unmarks: Bool) {
        let deactivates = unusedContent != nil
        if deactivates, var keeping {
            keeping.idleSweeps = keeping.uses == uses ? keeping.idleSweeps + 1 : 0
            keeping.uses = uses
            self.keeping = keeping.idleSweeps == Self.maxIdleSweeps ? nil : keeping
        }
        return (deactivates, returnableMark != nil)
    }

    // MARK: Local changes

    /// The file's state when it was marked dirty because it was opened for writing. Nil when the file is not marked, or
    /// is dirty for good.
    package var mark: DirtyMark? { returnable?.mark }

    /// ``mark`` when no handle can write any more.
    package var returnableMark: DirtyMark? { handles.writers == 0 ? mark : nil }

    /// The record says dirty, durably.
    ///
    /// - Parameter mark: for taking the dirty flag back; nil: the flag stays.
    package mutating func becomeDirty(_ mark: DirtyMark?) {
        returnable = mark.map(ReturnableMark.init)
        if case .dual(let flags) = residence { residence = .dual(flags.union(.dirty)) }
    }

    /// The file was changed: it stays dirty.
    package mutating func stayDirty() { becomeDirty(nil) }

    /// The record was written for another reason, which moved the change time.
    package mutating func noteRecordWritten(before: stat, after: stat) {
        returnable = mark?.kept(before: before, after: after).map(ReturnableMark.init)
    }

    /// Under the transition lock: the mark is about to be taken back, once. The file stays dirty, unless
    /// ``becomeClean()`` follows.
    package mutating func takeMark() -> DirtyMark? {
        guard let mark = returnableMark else { return nil }
        returnable = nil
        return mark
    }

    /// The record no longer says dirty.
    package mutating func becomeClean() {
        if case .dual(let flags) = residence { residence = .dual(flags.subtracting(.dirty)) }
    }

    // MARK: Giving up and replacing the content

    /// As far as this state knows, nothing uses the file.
    package var isUnused: Bool { content == nil && leases == 0 && handles.areNone }

    /// Why the file cannot be flushed now.
    ///
    /// - Parameter isIdle: whether no fetch of the content is under way; nil: the file is not active.
    package func obstacle(isIdle: Bool?) -> Refusal? {
        guard leases > 0 || !handles.areNone || isIdle == false else { return nil }
        return Refusal("it is open, or being filled", isBusy: true)
    }

    /// Under the transition lock: the content is about to be given up. From here on users open the file as an
    /// incomplete one.
    ///
    /// - Returns: why the content must be kept; then nothing has changed. Nil allows the release.
    package mutating func beginRelease(_ flags: Record.Flags, modified: RemoteEntry.Time) -> Refusal? {
        if flags.contains(.dirty) || returnable != nil { return Refusal("it has local changes") }
        guard isUnused else { return Refusal("it is open", isBusy: true) }
        note(.incomplete(.releasing, flags, modified: modified))
        return nil
    }
}
