import Glibc
import HSMCore
import HSMSystem
import Synchronization
import TestSupport
import Testing

@testable import HSMStore

/// Files that are filled from the remote: what is on disk when, and what is seen of it after a restart.
@Suite struct FillTests {
    private static let size = 10 * StoreFixture.granule - 100

    @Test("What was filled and committed is what a restart sees, exactly, and the record says partial")
    func commit() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            #expect(file.granules.isEmpty && !file.stored.hasPending)
            try fixture.fill(granules: 2..<3, of: file)
            try fixture.fill(granules: 9..<10, of: file)
            #expect(try file.stored.hasPending && fixture.record().state == .offline && !fixture.hasMap())
            try file.stored.commit()
            #expect(!file.stored.hasPending)
        }
        #expect(try fixture.record().state == .partial)
        #expect(try fixture.presences() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1])
        try fixture.restart()
        let file = try fixture.use()
        #expect(file.granules == [2, 9] && !file.stored.hasPending)
        #expect(try file.bytes(granules: 2..<3) == Pattern.bytes(8192..<12288))
        #expect(try file.stored.lower.bytes(36_864..<50_000) == Pattern.bytes(36_864..<Self.size))
    }

    @Test("What was filled and not committed is absent after a restart")
    func uncommitted() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            try fixture.fill(granules: 0..<2, of: file)
            try file.stored.commit()
            try fixture.fill(granules: 5..<6, of: file)
            #expect(file.granules == [0, 1, 5])
        }
        try fixture.restart()
        #expect(try fixture.use().granules == [0, 1])
    }

    @Test("The map keeps the checksum of what was filled, the last granule's as far as it goes")
    func checksums() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.fill(granules: 1..<10, of: file)
        try file.stored.commit()
        let map = try Descriptor.open(fixture.map(), O_RDONLY).bytes(0..<8192)
        for granule in 1..<10 {
            let bytes = Pattern.bytes(granule * 4096..<min((granule + 1) * 4096, Self.size))
            let place = 4096 + 256 + granule * 4
            #expect(CRC32C.of(bytes) == map[place..<place + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) })
        }
    }

    @Test("A file that is filled whole becomes dual: no map, the recorded modification time, nothing more to use")
    func complete() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            try fixture.fill(granules: 0..<4, of: file)
            try file.stored.commit()
            #expect(try fixture.hasMap())
            try fixture.fill(0..<Self.size, of: file)
            #expect(file.fill.isComplete && !file.stored.isFinished && file.stored.hasPending)
            try file.stored.commit()
            #expect(file.stored.isFinished && !file.stored.hasPending)
        }
        let record = try fixture.record()
        #expect(record.state == .dual && record.flags.isEmpty && record.modified == StoreFixture.modified)
        #expect(try !fixture.hasMap())
        let status = try fixture.lower().stat()
        #expect(status.st_mtim.tv_sec == 1_000_000_000 && status.st_mtim.tv_nsec == 123_456_789)
        #expect(try fixture.lower().bytes(0..<Self.size + 1) == Pattern.bytes(0..<Self.size))
        try fixture.restart()
        #expect(try fixture.store.use(fixture.lower(), engine: fixture.engine) == nil)
    }

    @Test("The modification time that is shown never is that of a fill, nor does one stay on disk")
    func modified() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        try fixture.fill(granules: 0..<1, of: file)
        #expect(file.stored.modified == StoreFixture.modified)
        try file.stored.commit()
        #expect(try fixture.lower().stat().st_mtim.tv_nsec == 123_456_789)
    }

    @Test("A modification time that the user set survives fills, completion and a restart")
    func userModified() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let time = RemoteEntry.Time(seconds: 77, nanoseconds: 7)
        do {
            let file = try fixture.use()
            try file.stored.touch(time)
            #expect(file.stored.hasPending)
            try file.stored.commit()
        }
        try fixture.restart()
        let file = try fixture.use()
        #expect(file.stored.modified == time)
        try fixture.fill(0..<Self.size, of: file)
        try file.stored.commit()
        #expect(try fixture.record().modified == time)
        #expect(try fixture.lower().stat().st_mtim.tv_sec == 77)
        // As if the commit that finished the file had come between the user's call and its note.
        try file.stored.lower.setTimes(access: FileTime.omit, modification: timespec(tv_sec: 5, tv_nsec: 0))
        try file.stored.touch(RemoteEntry.Time(seconds: 78, nanoseconds: 0))
        #expect(try fixture.lower().stat().st_mtim.tv_sec == 78)
    }

    @Test("An empty file is complete as soon as it is used")
    func empty() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 0)
        let file = try fixture.use()
        #expect(file.fill.isComplete)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual)
        #expect(fixture.source.log.reads.isEmpty)
    }

    @Test("A file whose last record was lost in a crash is finished when it is used")
    func finishedLater() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            try fixture.fill(granules: 0..<5, of: file)
            try file.stored.commit()
            try fixture.fill(granules: 5..<10, of: file)
            let commit = file.stored.beginCommit()
            // The map came to disk, the record did not.
            try fixture.store.write(fixture.record(), to: fixture.lower())
            try file.stored.end(commit, isSynced: false)
        }
        try fixture.change { $0.state = .partial }
        let map = try ResidencyMap.create(
            in: fixture.store.partial, name: FileHandle(of: fixture.lower()).name, epoch: 1, granules: 10,
            session: fixture.store.session)
        try map.update(0..<10) { page, granule in page.set(.filled, of: granule) }
        try fixture.restart()
        let file = try fixture.use()
        #expect(file.fill.isComplete && file.stored.hasPending)
        fixture.store.drain()
        #expect(try fixture.record().state == .dual && !fixture.hasMap())
    }

    @Test("A clean file whose lower size is not the recorded one is refused, and is not finished")
    func otherSize() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        for size in [Self.size - 1, Self.size + 1] {
            try fixture.lower().truncate(to: size)
            let error = #expect(throws: FillError.self) {
                try fixture.store.use(fixture.lower(), engine: fixture.engine)
            }
            #expect(error?.code == .io && error?.cause.contains("\(size) bytes instead of \(Self.size)") == true)
        }
        try fixture.lower().truncate(to: Self.size)
        let file = try fixture.use()
        try fixture.fill(0..<Self.size, of: file)
        try fixture.lower().truncate(to: Self.size - 1)
        #expect(throws: Errno(rawValue: EIO)) { try file.stored.commit() }
        #expect(try fixture.record().state == .offline && !file.stored.isFinished)
    }

    @Test("A failed fill is noted with its cause, and the note goes when the file is complete")
    func failure() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        let file = try fixture.use()
        for (reason, flag) in [(FillError.Reason.remoteChanged, Record.Flags.stale), (.remoteGone, .lost)] {
            fixture.source.goDown(FillError(.io, reason, "because"))
            #expect(throws: FillError.self) { try fixture.fill(granules: 0..<1, of: file) }
            try until("the note") { try fixture.record().flags.contains([.error, flag]) }
            #expect(try fixture.record().lastError == "EIO: because")
        }
        fixture.source.comeBack()
        try fixture.fill(0..<Self.size, of: file)
        try file.stored.commit()
        #expect(try fixture.record().flags.isEmpty && fixture.record().lastError == "")
    }

    @Test("A granule far into a huge file costs little on disk")
    func huge() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 1 << 40)
        do {
            let file = try fixture.use()
            try fixture.fill((1 << 40) - 1..<1 << 40, of: file)
            try file.stored.commit()
        }
        try fixture.restart()
        #expect(try fixture.use().granules == [(1 << 28) - 1])
        #expect(try Descriptor.open(fixture.map(), O_RDONLY).stat().st_blocks * 512 < 64 << 10)
    }
}
