import Glibc
import HSMCore
import Testing

@testable import HSMFiles
@testable import HSMStore

/// Stands for the content of a file.
final class Content: Sendable {}

@Suite struct LifecycleTests {
    private static let time = RemoteEntry.Time(seconds: 1, nanoseconds: 2)
    private static let offline = Residence.incomplete(.offline, [], modified: time)
    private static let dual = Residence.dual([])
    private let content = Content()
    private let quiet = Lifecycle<Content>.Facts(isFinished: false, hasPending: false, isIdle: true)
    private let finished = Lifecycle<Content>.Facts(isFinished: true, hasPending: false, isIdle: true)

    private func active() -> Lifecycle<Content> {
        var file = Lifecycle<Content>(Self.offline)
        file.activate(content)
        return file
    }

    @Test("What somebody gets who wants to use a file is by its residence, while it is not active")
    func access() {
        var local = Lifecycle<Content>(.local)
        if case .complete = local.lease() {} else { Issue.record("local") }
        var dual = Lifecycle<Content>(.dual(.dirty))
        if case .complete = dual.lease() {} else { Issue.record("dual") }
        var unknown = Lifecycle<Content>(.unknown(RecordError("damaged")))
        if case .refused(RecordError("damaged")) = unknown.lease() {} else { Issue.record("unknown") }
        var offline = Lifecycle<Content>(Self.offline)
        if case .load = offline.lease() {} else { Issue.record("offline") }
        var unread = Lifecycle<Content>(nil)
        if case .load = unread.lease() {} else { Issue.record("not read") }
        for file in [local, dual, unknown, offline, unread] { #expect(!file.isNeeded && file.leases == 0) }
        var active = active()
        if case .leased(let leased) = active.lease() { #expect(leased === content) } else { Issue.record("active") }
        #expect(active.leases == 2 && active.isNeeded && !active.isComplete)
    }

    @Test("A leased or open file is deactivated only when it is finished, an open one not even then")
    func deactivation() {
        var file = active()
        #expect(file.unusedContent == nil)
        var uses = file.beginDeactivation()
        #expect(file.deactivate(content, quiet, since: uses, Self.offline) == false)
        var leased = file
        #expect(leased.deactivate(content, finished, since: uses, Self.dual) == true)
        #expect(leased.content == nil && leased.isComplete && leased.leases == 1)
        file.endLease()
        file.openHandle(isServed: true, isWritable: false)
        uses = file.beginDeactivation()
        #expect(file.unusedContent == nil)
        #expect(file.deactivate(content, quiet, since: uses, Self.offline) == false)
        #expect(file.deactivate(content, finished, since: uses, Self.dual) == false)
        file.closeHandle(isServed: true, isWritable: false)
        uses = file.beginDeactivation()
        #expect(file.unusedContent === content)
        #expect(file.deactivate(Content(), quiet, since: uses, Self.offline) == false, "another one's")
        #expect(file.deactivate(content, quiet, since: uses, Self.offline) == true)
        #expect(!file.isNeeded && file.isIncomplete)
    }

    @Test("A file whose content is being fetched, or not yet on disk, stays active")
    func facts() {
        var file = active()
        file.endLease()
        let busy = [
            Lifecycle<Content>.Facts(isFinished: false, hasPending: true, isIdle: true),
            .init(isFinished: false, hasPending: false, isIdle: false),
        ]
        for facts in busy {
            #expect(file.deactivate(content, facts, since: file.beginDeactivation(), Self.offline) == false)
        }
    }

    private enum Use: CaseIterable { case lease, endOfLease, handle, endOfHandle, change }

    @Test("Whoever uses a file while its facts are looked at keeps it active", arguments: Use.allCases)
    private func usedMeanwhile(use: Use) {
        var file = active()
        if use == .endOfHandle { file.openHandle(isServed: true, isWritable: false) }
        if use != .endOfLease { file.endLease() }
        let uses = file.beginDeactivation()
        switch use {
        case .lease:
            #expect(file.leaseActive() === content)
            file.endLease()
        case .endOfLease: file.endLease()
        case .handle:
            file.openHandle(isServed: true, isWritable: false)
            file.closeHandle(isServed: true, isWritable: false)
        case .endOfHandle: file.closeHandle(isServed: true, isWritable: false)
        case .change: file.noteUserChange()
        }
        #expect(file.deactivate(content, quiet, since: uses, Self.offline) == false)
        #expect(file.deactivate(content, quiet, since: file.beginDeactivation(), Self.offline) == true)
    }

    @Test("A file that is read by ranges stays active for ten sweeps without a lease")
    func kept() {
        var file = active()
        file.keepActive()
        file.endLease()
        // The first finds a new use.
        for _ in 0..<Lifecycle<Content>.maxIdleSweeps {
            let sweep = file.sweep()
            #expect(sweep.deactivates && file.isKeptActive)
        }
        _ = file.leaseActive()
        file.keepActive()
        #expect(file.sweep().deactivates == false)
        file.endLease()
        for _ in 0..<Lifecycle<Content>.maxIdleSweeps {
            #expect(file.isKeptActive)
            _ = file.sweep()
        }
        #expect(file.isKeptActive)
        _ = file.sweep()
        #expect(!file.isKeptActive)
    }

    private static func status(size: Int = 1, changed: Int) -> stat {
        var status = stat()
        status.st_size = size
        status.st_ctim.tv_sec = changed
        return status
    }

    private static func mark(changed: Int) -> DirtyMark { DirtyMark(status(changed: changed), showing: timespec()) }

    @Test("A dirty file becomes clean again by its mark alone, when no handle can write, and once")
    func marks() {
        var file = Lifecycle<Content>(Self.dual)
        file.becomeDirty(Self.mark(changed: 1))
        file.openHandle(isServed: false, isWritable: true)
        #expect(!file.isClean && file.isNeeded)
        #expect(file.takeMark() == nil)
        #expect(file.sweep().unmarks == false)
        file.closeHandle(isServed: false, isWritable: true)
        #expect(file.sweep().unmarks == true)
        #expect(file.takeMark() != nil)
        #expect(file.takeMark() == nil)
        #expect(!file.isClean && !file.isNeeded)
        file.becomeClean()
        #expect(file.isClean)
        file.becomeDirty(Self.mark(changed: 1))
        file.stayDirty()
        #expect(file.takeMark() == nil)
        #expect(!file.isClean)
    }

    @Test("A mark survives that the record is written for another reason, and not that the file is changed meanwhile")
    func keptMarks() {
        var file = Lifecycle<Content>(nil)
        file.becomeDirty(Self.mark(changed: 1))
        file.noteRecordWritten(before: Self.status(changed: 1), after: Self.status(changed: 2))
        #expect(file.mark != nil)
        var written = file
        written.noteRecordWritten(before: Self.status(changed: 3), after: Self.status(changed: 4))
        #expect(written.mark == nil)
        file.noteRecordWritten(before: Self.status(changed: 2), after: Self.status(size: 2, changed: 3))
        #expect(file.mark == nil)
    }

    @Test(
        "A file is given up only without leases, handles, content and changes; then it is opened as an incomplete one")
    func release() {
        let clean = Lifecycle<Content>(Self.dual)
        var leased = active()
        #expect(leased.beginRelease([], modified: Self.time)?.isBusy == true)
        leased.endLease()
        #expect(leased.beginRelease([], modified: Self.time)?.isBusy == true)
        for isServed in [true, false] {
            var open = clean
            open.openHandle(isServed: isServed, isWritable: false)
            #expect(open.beginRelease([], modified: Self.time)?.isBusy == true)
            #expect(open.isComplete)
            #expect(open.obstacle(isIdle: nil)?.isBusy == true)
        }
        var dirty = clean
        #expect(dirty.beginRelease(.dirty, modified: Self.time)?.isBusy == false)
        dirty.becomeDirty(Self.mark(changed: 1))
        #expect(dirty.beginRelease([], modified: Self.time)?.isBusy == false)
        var free = clean
        #expect(free.obstacle(isIdle: nil) == nil && free.obstacle(isIdle: true) == nil)
        #expect(free.obstacle(isIdle: false)?.isBusy == true)
        #expect(free.beginRelease([], modified: Self.time) == nil)
        #expect(free.isIncomplete)
        if case .load = free.lease() {} else { Issue.record("it is loaded") }
    }

    @Test("Where records are read each time, nothing is kept of them")
    func unkept() {
        var file = Lifecycle<Content>(nil)
        file.note(Self.dual)
        file.becomeDirty(nil)
        file.becomeClean()
        #expect(file.residence == nil && !file.isComplete && !file.isIncomplete && !file.isClean)
        #expect(file.beginRelease([], modified: Self.time) == nil)
        #expect(file.residence == nil)
    }
}
