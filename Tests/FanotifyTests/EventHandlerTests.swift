import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMFanotify

@Suite struct EventHandlerTests {
    private static let (granule, size) = (HandlerFixture.granule, HandlerFixture.size)
    /// Nothing is known of this thread: it may change anything.
    private static let unknown: pid_t = 0

    @Test("A file without a record is allowed at once")
    func local() throws {
        try withHandler { fixture throws in
            try Pattern.write(fixture.lower(), size: 100)
            for range in [nil, 0..<4096] {
                let number = try fixture.raise(range, by: Self.unknown)
                #expect(fixture.answer(to: number) == .allowed)
            }
            #expect(try fixture.record() == nil && fixture.handler.tracked.count == 0)
        }
    }

    @Test("An open of a missing file waits until all of it is there")
    func opens() throws {
        let callers = try Callers()
        let reader = try callers.openingForReading()
        try withHandler { fixture throws in
            try fixture.make(.offline)
            fixture.remote.hold(true)
            let number = try fixture.raise(nil, by: reader)
            try until("the fetch") { fixture.remote.log.running > 0 }
            #expect(fixture.answer(to: number) == nil)
            #expect(fixture.link.table.entries.map(\.number) == [number])
            fixture.remote.hold(false)
            #expect(try fixture.wait(for: number) == .allowed)
            #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
            try until("the record") {
                fixture.handler.sweep()
                return try fixture.record()?.state == .dual
            }
            #expect(try fixture.record()?.flags == [])
            try until("the end of the use") { fixture.handler.tracked.count == 0 }
        }
    }

    @Test("With fills by reads an open for reading waits for nothing, and a read for its own pages")
    func ranges() throws {
        let callers = try Callers()
        let (opener, reader) = (try callers.openingForReading(), try callers.reading())
        try withHandler(.read) { fixture throws in
            try fixture.make(.offline)
            #expect(try fixture.outcome(nil, by: opener) == .allowed)
            #expect(fixture.remote.log.reads.isEmpty)
            #expect(try fixture.outcome(Self.granule..<2 * Self.granule, by: reader) == .allowed)
            #expect(fixture.remote.log.reads == [Self.granule..<2 * Self.granule])
            let read = Pattern.bytes(Self.granule..<2 * Self.granule)
            let zeros = [UInt8](repeating: 0, count: Self.granule)
            #expect(try fixture.content().prefix(3 * Self.granule) == (zeros + read + zeros)[...])
            // It stays active for the reader's next access.
            #expect(fixture.handler.tracked.count == 1)
            #expect(try fixture.outcome(Self.granule..<2 * Self.granule, by: reader) == .allowed)
            #expect(fixture.remote.log.reads.count == 1)
            // The empty range of a clone, and an access by a call that may be a mapping: all of it.
            #expect(try fixture.outcome(0..<0, by: reader) == .allowed)
            #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
        }
    }

    @Test("A caller of whom nothing is known may change the file: it is filled whole, and dirty before the answer")
    func change() throws {
        try withHandler(.read) { fixture throws in
            try fixture.make(.offline)
            #expect(try fixture.outcome(0..<4096, by: Self.unknown) == .allowed)
            #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
            #expect(try fixture.record()?.state == .dual && fixture.record()?.flags == .dirty)
        }
    }

    @Test("A failed fill denies the access, and the next one tries again")
    func failure() throws {
        let callers = try Callers()
        let reader = try callers.openingForReading()
        try withHandler { fixture throws in
            try fixture.make(.offline)
            fixture.remote.goDown(FillError(.io, .remoteGone, "gone"))
            #expect(try fixture.outcome(nil, by: reader) == .denied(EIO))
            #expect(try fixture.outcome(0..<4096, by: Self.unknown) == .denied(EIO))
            #expect(try fixture.record()?.flags.contains(.dirty) == false)
            fixture.remote.comeBack()
            #expect(try fixture.outcome(nil, by: reader) == .allowed)
            #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
            let counts = Dictionary(uniqueKeysWithValues: fixture.link.counters.snapshot.map { ($0.name, $0.value) })
            #expect(counts["denied"] == 2 && counts["allowed"] == 1 && counts["answeredTwice"] == 0)
        }
    }

    @Test("A shutdown denies what waits")
    func shutdown() throws {
        let callers = try Callers()
        let reader = try callers.openingForReading()
        try withHandler { fixture throws in
            try fixture.make(.offline)
            fixture.remote.hold(true)
            let number = try fixture.raise(nil, by: reader)
            try until("the fetch") { fixture.remote.log.running > 0 }
            fixture.engine.shutDown()
            guard case .denied = try fixture.wait(for: number) else {
                Issue.record("it was allowed")
                return
            }
        }
    }

    @Test("An open for writing of a complete file is dirty first, and clean again when nothing was written")
    func writer() throws {
        let callers = try Callers()
        let (opener, reader) = (try callers.openingForWriting(), try callers.openingForReading())
        try withHandler { fixture throws in
            try fixture.make(.dual)
            #expect(try fixture.outcome(nil, by: reader) == .allowed)
            #expect(try fixture.record()?.flags == [])
            // The kernel counts the opener as a writer before the event.
            var writer: Descriptor? = try Descriptor.open(fixture.lower(), O_WRONLY)
            #expect(try fixture.outcome(nil, by: opener) == .allowed)
            #expect(try fixture.record()?.flags == .dirty)
            #expect(try fixture.outcome(nil, by: opener) == .allowed, "it is marked already")
            fixture.handler.sweep()
            #expect(try fixture.record()?.flags == .dirty)
            _ = writer.take()
            try until("the clean record") {
                fixture.handler.sweep()
                return try fixture.record()?.flags == []
            }
            #expect(fixture.remote.log.reads.isEmpty)
        }
    }

    @Test("A file that was cut off while nobody was told is dirty for good at its next open")
    func unseen() throws {
        let callers = try Callers()
        let reader = try callers.openingForReading()
        try withHandler { fixture throws in
            try fixture.make(.dual)
            usleep(30_000)
            #expect(truncate(fixture.lower(), 10) == 0)
            #expect(try fixture.outcome(nil, by: reader) == .allowed)
            #expect(try fixture.record()?.flags == .dirty)
            fixture.handler.sweep()
            #expect(try fixture.record()?.flags == .dirty)
            #expect(try fixture.content() == Pattern.bytes(0..<10))
        }
    }

    @Test("A record that cannot be believed denies every access")
    func damaged() throws {
        let callers = try Callers()
        let reader = try callers.openingForReading()
        try withHandler { fixture throws in
            try fixture.make(.offline)
            let file = try Descriptor.open(fixture.lower(), O_RDWR)
            try [UInt8](repeating: 0x55, count: 60).withBytes { bytes throws(Errno) in
                try ExtendedAttributes.set(fixture.store.attribute, of: file, to: bytes)
            }
            #expect(try fixture.outcome(nil, by: reader) == .denied(EIO))
            #expect(try fixture.outcome(0..<4096, by: Self.unknown) == .denied(EIO))
            #expect(fixture.remote.log.reads.isEmpty)
        }
    }

    @Test("An event that an earlier daemon left is filled by its file handle")
    func inherited() throws {
        try withHandler { fixture throws in
            try fixture.make(.offline)
            let handle = try FileHandle(of: Descriptor.open(fixture.lower(), O_RDONLY))
            fixture.link.table.enter(.init(number: 9, thread: Self.unknown, range: 0..<4096, file: handle))
            fixture.handler.handleInherited(
                HandlerFixture.Pending(
                    number: 9, range: 0..<4096, thread: Self.unknown, handle: handle, descriptor: nil,
                    link: fixture.link))
            #expect(try fixture.wait(for: 9) == .allowed)
            #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
        }
    }

    @Test("An event that is dropped is denied, and its number is free afterwards")
    func dropped() throws {
        try withHandler { fixture throws in
            try fixture.make(.dual)
            let file = try Descriptor.open(fixture.lower(), O_RDONLY)
            let handle = try FileHandle(of: file)
            do {
                let event = HandlerFixture.Pending(
                    number: 9, range: nil, thread: 0, handle: handle, descriptor: file, link: fixture.link)
                #expect(event.holdsNumber && !event.hasEnded && event.isOpen)
            }
            #expect(fixture.answer(to: 9) == .denied(EIO))
            let event = HandlerFixture.Pending(
                number: 10, range: nil, thread: 0, handle: handle, descriptor: nil, link: fixture.link)
            // No event may be denied with this errno.
            event.answer(Errno(rawValue: ENOENT))
            #expect(event.hasEnded && fixture.answer(to: 10) == .denied(EIO))
        }
    }

    // MARK: The reader

    /// The kernel's bytes of one event.
    private func bytes(_ mask: UInt64, _ number: Int32, thread: pid_t, range: Range<Int>? = nil) -> [UInt8] {
        var details: [UInt8] = []
        if let range {
            let record = passhsm_fan_range(
                info_type: 6, pad: 0, length: 24, reserved: 0, offset: UInt64(range.lowerBound),
                count: UInt64(range.count))
            details = withUnsafeBytes(of: record) { Array($0) }
        }
        let header = passhsm_fan_event(
            event_len: UInt32(24 + details.count), version: 3, reserved: 0, metadata_len: 24, mask: mask, fd: number,
            pid: thread)
        return withUnsafeBytes(of: header) { Array($0) } + details
    }

    /// A descriptor that the reader closes, open on `path`.
    private func number(_ path: String) throws -> Int32 {
        let file = try Descriptor.open(path, O_RDONLY)
        return try check { fcntl(file.raw, F_DUPFD_CLOEXEC, 0) }
    }

    @Test("The reader hands files on, allows what has no content and its own accesses, and denies the rest")
    func reader() throws {
        // Its thread reads as long as the process lives.
        let fixture = try HandlerFixture()
        defer { fixture.directory.remove() }
        try fixture.make(.offline)
        try EventReader(link: fixture.link, handler: fixture.handler, log: .silent).start()
        func outcome(_ mask: UInt64, _ path: String, _ thread: pid_t, _ range: Range<Int>? = nil) throws
            -> HandlerFixture.Answer?
        {
            let number = try number(path)
            // Lost events have no number and no answer.
            let batch =
                bytes(PASSHSM_FAN_Q_OVERFLOW, -1, thread: 0) + bytes(mask, number, thread: thread, range: range)
            #expect(send(fixture.kernel.raw, batch, batch.count, 0) == batch.count)
            return try fixture.wait(for: number)
        }
        let (open, access) = (PASSHSM_FAN_OPEN_PERM, PASSHSM_FAN_PRE_ACCESS)
        #expect(
            try outcome(open, fixture.lower(), passhsm_gettid()) == .allowed, "the process must not wait for itself")
        #expect(try outcome(open, fixture.lower(""), 1) == .allowed)
        #expect(try outcome(open | access, fixture.lower(), 1) == .denied(EIO))
        #expect(try outcome(access, fixture.lower(), 1) == .denied(EIO), "an access without a range")
        #expect(fixture.remote.log.reads.isEmpty)
        #expect(try outcome(access, fixture.lower(), 1, 0..<4096) == .allowed)
        #expect(try fixture.content() == Pattern.bytes(0..<Self.size))
        let counts = Dictionary(uniqueKeysWithValues: fixture.link.counters.snapshot.map { ($0.name, $0.value) })
        #expect(counts["open"] == 2 && counts["access"] == 1 && counts["allowed"] == 3 && counts["denied"] == 2)
        try until("the last answer") { fixture.link.table.entries.isEmpty }
    }
}
