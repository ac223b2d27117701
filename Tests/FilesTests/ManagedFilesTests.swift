import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Synchronization
import TestSupport
import Testing

/// The life of a file on a real lower directory, without a mount.
@Suite struct ManagedFilesTests {
    private static let whole = FilesFixture.content(version: 1)

    private func with(_ state: Record.State = .offline, _ body: (FilesFixture) throws -> Void) throws {
        let fixture = try FilesFixture(state)
        defer { fixture.remove() }
        try body(fixture)
    }

    @Test("Leases share one content; with the last one, and what is on disk by then, the file is inactive")
    func leases() throws {
        try with { fixture in
            let first = try #require(try fixture.lease())
            let second = try #require(try fixture.lease())
            try fixture.fill(0..<2)
            first.end()
            #expect(fixture.file.content != nil)
            second.end()
            try until("the commit") { fixture.file.content == nil }
            #expect(fixture.front.takeEvents() == ["active", "inactive"])
            #expect(try fixture.record().state == .partial)
            #expect(fixture.file.withState { $0.lifecycle.isIncomplete && !$0.isOwnChange })
            // What was there before is there again.
            let again = try #require(try fixture.lease())
            #expect(fixture.file.content?.fill.isPresent(0..<2 * FilesFixture.granule) == true)
            again.end()
        }
    }

    @Test("A lease that is let go of ends, also one that waits in a closure that nobody calls")
    func dropped() throws {
        try with { fixture in
            do { _ = try fixture.lease() }
            #expect(fixture.file.content == nil)
            let lease = try #require(try fixture.lease())
            lease.endLater()
            try until("the end on another thread") { fixture.file.content == nil }
        }
    }

    @Test("A file that was filled is complete by its record, and has no lease any more")
    func finished() throws {
        try with { fixture in
            try fixture.fillWhole()
            try until("the commit") { fixture.file.content == nil }
            #expect(fixture.front.takeEvents() == ["active", "finished"])
            #expect(try fixture.record().state == .dual)
            #expect(fixture.file.withState { $0.lifecycle.isComplete && $0.lifecycle.isClean })
            #expect(try fixture.lease() == nil)
        }
    }

    @Test("A leased file can be finalized at once, and is then complete for everybody")
    func finalized() throws {
        try with { fixture in
            let lease = try #require(try fixture.lease())
            let content = try #require(fixture.file.content)
            try fixture.fill(0..<FilesFixture.size / FilesFixture.granule)
            let isComplete = try fixture.files.transition(fixture.file) { () throws(Errno) in
                // The second finds what the first has done.
                let isFirst = try fixture.files.finalizeLocked(fixture.file, content)
                return try fixture.files.finalizeLocked(fixture.file, content) && isFirst
            }
            #expect(isComplete && fixture.file.content == nil)
            #expect(try fixture.record().state == .dual)
            lease.end()
            #expect(fixture.front.takeEvents() == ["active", "finished"])
        }
    }

    @Test("A file whose record cannot be believed is used by nobody, and one that may not be opened stays as it is")
    func refused() throws {
        try with { fixture in
            fixture.front.refusal.withLock { $0 = Errno(rawValue: EMFILE) }
            #expect(throws: Errno(rawValue: EMFILE)) { _ = try fixture.lease() }
            fixture.front.refusal.withLock { $0 = nil }
            fixture.file.withState { $0.lifecycle.note(.unknown(RecordError("damaged"))) }
            #expect(throws: Errno(rawValue: EIO)) { _ = try fixture.lease() }
            #expect(fixture.file.withState { !$0.lifecycle.isNeeded })
        }
    }

    @Test("A released file has no data and is filled again; the front end is told before and after")
    func released() throws {
        try with(.dual) { fixture in
            #expect(fixture.release() == nil)
            // It is tried again while a child of another test, from fork to exec, has the file open.
            let events = fixture.front.takeEvents()
            #expect(events.first == "releasing" && events.last == "forget pages")
            #expect(try fixture.record().state == .offline && fixture.place().seekData(from: 0) == nil)
            #expect(fixture.file.withState { $0.lifecycle.isIncomplete && !$0.isOwnChange })
            try fixture.fillWhole()
            #expect(try fixture.content() == Self.whole)
        }
    }

    @Test("A file that is leased or open is not given up, and says so until it is free")
    func busy() throws {
        try with { fixture in
            let lease = try #require(try fixture.lease())
            try fixture.fill(0..<1)
            #expect(fixture.release()?.isBusy == true)
            lease.end()
            #expect(fixture.release() == nil)
            fixture.file.withState { $0.lifecycle.openHandle(isServed: false, isWritable: false) }
            #expect(fixture.release()?.isBusy == true)
            fixture.file.withState { $0.lifecycle.closeHandle(isServed: false, isWritable: false) }
            #expect(fixture.release() == nil)
        }
    }

    @Test("A pinned file is not given up; it can be pinned while it is active")
    func pinned() throws {
        try with { fixture in
            try fixture.files.setPinned(true, fixture.place())
            #expect(fixture.release()?.cause.contains("pinned") == true)
            let lease = try #require(try fixture.lease())
            try fixture.files.setPinned(false, fixture.place())
            lease.end()
            #expect(fixture.release() == nil)
        }
    }

    @Test(
        "A file that was opened for writing is dirty, and clean again when it was not written",
        arguments: [false, true], [false, true])
    func marked(isWritten: Bool, isPinned: Bool) throws {
        try with(.dual) { fixture in
            do {
                let writer = try #require(try fixture.openForWriting())
                #expect(try fixture.record().flags == .dirty)
                if isPinned { try fixture.files.setPinned(true, fixture.place()) }
                if isWritten { try writer.put([1], at: 0) }
                fixture.closeWriter()
                // It is still open below, as a mapping would be.
                #expect(try fixture.record().flags.contains(.dirty))
                #expect(fixture.file.withState { $0.lifecycle.mark != nil })
            }
            try until("the look after the mark") {
                fixture.files.sweep(fixture.file)
                return fixture.file.withState { $0.lifecycle.mark == nil }
            }
            var expected: Record.Flags = isWritten ? .dirty : []
            if isPinned { expected.insert(.pinned) }
            #expect(try fixture.record().flags == expected)
            #expect(fixture.file.withState { $0.lifecycle.isClean } == !isWritten)
            #expect(fixture.front.takeEvents() == (isWritten ? ["dirty"] : []))
            #expect(fixture.file.withState { !$0.isOwnChange })
        }
    }

    @Test("An unused clean file is taken to the remote's new version as a whole, and a leased or dirty one is not")
    func refetched() throws {
        try with { fixture in
            let lease = try #require(try fixture.lease())
            try fixture.fill(0..<1)
            #expect(fixture.files.refetchable(fixture.file) == nil, "leased")
            lease.end()
            try until("the commit") { fixture.file.content == nil }
            _ = fixture.front.takeEvents()
            let record = try #require(fixture.files.refetchable(fixture.file))
            func refetch(_ version: UInt8) throws {
                let object = FilesFixture.object(version: version)
                fixture.source.behaviour.withLock { $0.current = object }
                try fixture.files.refetch(fixture.file, record, object, modified: FakeRemote.modified)
            }
            try refetch(1)
            #expect(fixture.front.takeEvents() == [], "the same version")
            let late = try #require(try fixture.lease())
            try refetch(2)
            late.end()
            #expect(fixture.front.takeEvents() == ["active", "inactive"], "in use after all")
            try refetch(2)
            #expect(fixture.front.takeEvents() == ["refetched", "forget pages"])
            try fixture.fillWhole()
            #expect(try fixture.content() == FilesFixture.content(version: 2))
        }
        try with { fixture in
            let lease = try #require(try fixture.lease())
            try #require(fixture.file.content).stored.becomeDirty()
            lease.end()
            try until("the commit") { fixture.file.content == nil }
            #expect(fixture.files.refetchable(fixture.file) == nil, "dirty")
        }
    }

    @Test("A file that is recalled is complete; a file that is not regular is refused")
    func recalled() async throws {
        let fixture = try FilesFixture()
        defer { fixture.remove() }
        let bytes = Counter()
        try await fixture.files.recall(fixture.place()) { count in
            bytes.add(count)
            return true
        }
        #expect(bytes.value == FilesFixture.size)
        #expect(try fixture.content() == Self.whole)
        let folder = try Descriptor.open(fixture.path, O_RDONLY)
        #expect(fixture.refusal { () throws(Refusal) in try fixture.files.setPinned(true, folder) } != nil)
    }

    @Test("Readers, writers and releases of one file at once: one object, every byte right, no change lost")
    func atOnce() throws {
        try with { fixture in
            let released = Counter()
            let marked = Counter()
            let end = ContinuousClock.now + .seconds(20)
            let isDone = (0..<4).map { _ in Outcome<String?>() }
            func run(_ index: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
                try startThread(name: "test") {
                    do {
                        var round = 0
                        while round < 100 || ((released.value < 3 || marked.value < 3) && .now < end) {
                            try body(round)
                            round += 1
                        }
                        isDone[index].finish(nil)
                    } catch { isDone[index].finish("\(error)") }
                }
            }
            for reader in 0..<2 {
                try run(reader) { round in
                    // Nobody uses it now and then.
                    if round % 10 == 9 { usleep(20_000) }
                    guard let lease = try fixture.lease() else { return }
                    let first = (round * 3 + reader) % 10
                    try fixture.fill(round % 7 == 0 ? 0..<10 : first..<first + 1)
                    let range = first * FilesFixture.granule..<(first + 1) * FilesFixture.granule
                    let bytes = try fixture.content()
                    #expect(bytes[range] == Self.whole[range])
                    lease.end()
                }
            }
            try run(2) { _ in if fixture.release() == nil { released.add() } }
            try run(3) { _ in
                if try fixture.openForWriting() == nil {
                    usleep(2000)
                } else {
                    marked.add()
                    fixture.closeWriter()
                }
            }
            for outcome in isDone {
                let error = try #require(outcome.result(seconds: 60), "a thread hangs")
                #expect(error == nil)
            }
            // In the end a change, which nothing takes away.
            try fixture.fillWhole()
            try until("the commit") { fixture.file.content == nil }
            do { try #require(try fixture.openForWriting()).put([9, 9, 9], at: 5) }
            fixture.closeWriter()
            #expect(fixture.release()?.cause.contains("local changes") == true)
            #expect(try fixture.record().flags.contains(.dirty))
            var expected = Self.whole
            expected.replaceSubrange(5..<8, with: [9, 9, 9])
            #expect(try fixture.content() == expected)
            #expect(released.value > 0 && marked.value > 0)
        }
    }
}
