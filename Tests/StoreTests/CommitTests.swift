import Glibc
import HSMCore
import HSMSystem
import Synchronization
import TestSupport
import Testing

@testable import HSMStore

/// What commits bring to disk, alone and in groups, and what they leave pending when they fail.
@Suite struct CommitTests {
    private static let size = 10 * StoreFixture.granule

    @Test("What comes while a commit is under way is left to the next: it was not synced")
    func begun() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.fill(granules: 0..<1, of: file)
        let commit = file.stored.beginCommit()
        try fixture.fill(granules: 1..<10, of: file)
        try file.stored.end(commit, isSynced: true)
        #expect(try fixture.presences() == [1] && fixture.record().state == .partial && file.stored.hasPending)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual)
    }

    @Test("fsync does not rely on a commit that another thread has begun and not ended")
    func syncDuringCommit() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.write(7, granules: 1..<2, to: file)
        let commit = file.stored.beginCommit()
        try file.stored.sync()
        #expect(try fixture.presences() == [0, 3])
        #expect(file.stored.hasPending, "the other is still at it")
        try file.stored.end(commit, isSynced: false)
        #expect(try fixture.presences() == [0, 3] && !file.stored.hasPending)
    }

    @Test("What was committed while it waited for its group is left alone: its file may be put down, and changed since")
    func committedOtherwise() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.fill(granules: 0..<1, of: file)
        try file.stored.commit()
        let waiting = file.stored.beginCommit()
        let time = timespec(tv_sec: 1_234_567_890, tv_nsec: 5)
        try fixture.lower().setTimes(access: FileTime.omit, modification: time)
        try file.stored.end(waiting, isSynced: false)
        #expect(try fixture.lower().stat().st_mtim.tv_sec == 1_234_567_890)
    }

    @Test("A commit that fails keeps all that was pending, and the next one brings it to disk")
    func failure() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.fill(granules: 0..<2, of: file)
        let map = try fixture.map()
        mkdir(map, 0o755)
        for _ in 0..<2 {
            #expect(throws: Errno(rawValue: EISDIR)) { try file.stored.commit() }
            #expect(try file.stored.hasPending && fixture.record().state == .offline && file.granules == [0, 1])
        }
        fixture.store.drain()
        #expect(file.stored.hasPending)
        rmdir(map)
        fixture.store.drain()
        #expect(file.stored.hasPending, "nobody has asked for another commit")
        file.stored.scheduleCommit()
        fixture.store.drain()
        #expect(try !file.stored.hasPending && fixture.presences() == [1, 1])
    }

    @Test("drain returns when everything is on disk, a few files or many", arguments: [1, 7, 8, 40])
    func drain(count: Int) throws {
        let fixture = try StoreFixture(isPrompt: true)
        defer { fixture.remove() }
        let names = (0..<count).map { "file\($0)" }
        for name in names {
            try fixture.stub(name, size: Self.size)
            let file = try fixture.use(name)
            try fixture.fill(granules: 0..<1, of: file)
            try fixture.write(7, granules: 3..<4, to: file)
        }
        fixture.store.drain()
        for name in names { #expect(try fixture.presences(name) == [1, 0, 0, 3]) }
        #expect(try Set(names.map { try fixture.record($0).state }) == [.partial])
    }

    @Test("drain waits for a group that another thread has taken, to its end")
    func drainWaits() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let stored = try fixture.use().stored
        let committer = Committer(delay: 0)
        try committer.start()
        let (isCommitting, isDraining, isDone) = (Flag(), Flag(), Flag())
        fixture.store.afterCommit { _ in
            isCommitting.set()
            try? until("drain to be called") { isDraining.isSet }
            // Time for a drain that does not wait to return.
            usleep(50_000)
            isDone.set()
        }
        committer.schedule(stored)
        try until("the commit") { isCommitting.isSet }
        isDraining.set()
        committer.drain()
        #expect(isDone.isSet)
    }

    @Test("Commits come by themselves, and are told")
    func prompt() throws {
        let fixture = try StoreFixture(isPrompt: true)
        defer { fixture.remove() }
        let told = Told()
        fixture.store.afterCommit { handle in told.handles.withLock { _ = $0.insert(handle) } }
        for name in (0..<20).map({ "file\($0)" }) {
            let handle = try fixture.stub(name, size: Self.size).identity
            try fixture.fill(0..<Self.size, of: fixture.use(name))
            try until("the commit of \(name)") { told.handles.withLock { $0.contains(handle) } }
            // The first may have been a commit of what had come by then.
            try until("the last record of \(name)") { try fixture.record(name).state == .dual }
        }
    }

    @Test("One file's failure is not the others', in a group that is synced together")
    func failureInGroup() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for index in 0..<12 {
            try fixture.stub("file\(index)", size: Self.size)
            try fixture.fill(granules: 0..<1, of: fixture.use("file\(index)"))
        }
        mkdir(try fixture.map("file5"), 0o755)
        fixture.store.drain()
        for index in 0..<12 where index != 5 { #expect(try fixture.presences("file\(index)") == [1]) }
        #expect(try fixture.record("file5").state == .offline)
    }

    private final class Told: Sendable {
        let handles = Mutex<Set<FileHandle>>([])
    }

    @Test("Whoever fills waits while too many files do; the thread that commits can always ask for more")
    func room() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let names = ["a", "b", "c"]
        for name in names { try fixture.stub(name, size: Self.size) }
        let files = try names.map { try fixture.use($0).stored }
        let committer = Committer(delay: 0.01, maxWaiting: 1)
        try committer.start()
        let asked = Told()
        fixture.store.afterCommit { [files] handle in
            // Once each: both, while one is as many as may wait.
            guard asked.handles.withLock({ $0.insert(handle).inserted }) else { return }
            for file in files[1...] { committer.schedule(file) }
        }
        committer.schedule(files[0])
        try until("all commits") { asked.handles.withLock(\.count) == 3 }
        committer.waitForRoom(files[0])
        committer.drain()
        fixture.store.afterCommit { _ in }
    }

    @Test("A group is given its time, however often its files ask")
    func grouping() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        for granule in 0..<5 {
            try fixture.fill(granules: granule..<granule + 1, of: file)
            file.stored.scheduleCommit()
        }
        #expect(try fixture.record().state == .offline && !fixture.hasMap())
    }
}
