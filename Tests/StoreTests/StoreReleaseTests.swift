import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// Releasing by the store alone: what is refused, and what a crash leaves behind.
@Suite struct StoreReleaseTests {
    private static let size = 10 * StoreFixture.granule

    /// A complete file with the remote's content.
    private func withFile(_ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, state: .dual)
        // Closed again: an open file is not released.
        do {
            let file = try fixture.lower()
            try file.put(Pattern.bytes(0..<Self.size), at: 0)
            let time = StoreFixture.modified
            try file.setTimes(
                access: FileTime.omit, modification: timespec(tv_sec: time.seconds, tv_nsec: time.nanoseconds))
        }
        try body(fixture)
    }

    private func refusal(_ fixture: StoreFixture) -> String? {
        do throws(Refusal) {
            let lower: Descriptor
            do { lower = try fixture.lower() } catch { return "\(error)" }
            _ = try fixture.store.release(lower, expecting: fixture.store.releasable(lower))
        } catch { return error.cause }
        return nil
    }

    @Test("A record of the last epoch there is can be released, and its next epoch is another one")
    func lastEpoch() throws {
        try withFile { fixture in
            do {
                let lower = try fixture.lower()
                var record = try fixture.record()
                record.epoch = .max
                try fixture.store.write(record, to: lower)
            }
            #expect(refusal(fixture) == nil)
            let record = try fixture.record()
            #expect(record.state == .offline && record.epoch != .max)
        }
    }

    @Test("A released file has no data, its old modification time, and a record of a higher epoch")
    func released() throws {
        try withFile { fixture in
            let epoch = try fixture.record().epoch
            #expect(refusal(fixture) == nil)
            let record = try fixture.record()
            #expect(record.state == .offline && record.epoch > epoch)
            let file = try fixture.lower()
            #expect(try file.seekData(from: 0) == nil)
            #expect(try file.stat().st_size == Self.size)
            #expect(try file.stat().st_mtim.tv_nsec == StoreFixture.modified.nanoseconds)
        }
    }

    @Test(
        "What may not be given up keeps every byte, and the reason is told",
        arguments: Record.Flags([.dirty, .pinned]).names)
    func refused(flag: String) throws {
        try withFile { fixture in
            try fixture.change { $0.flags = flag == "dirty" ? .dirty : .pinned }
            #expect(refusal(fixture)?.contains(flag == "dirty" ? "local changes" : "pinned") == true)
            #expect(try fixture.lower().bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
        }
    }

    @Test("A file that was changed behind the store's back is not given up")
    func changedBehind() throws {
        try withFile { fixture in
            try fixture.lower().put([1, 2, 3], at: 100)
            #expect(refusal(fixture)?.contains("may have been changed") == true)
            #expect(try fixture.lower().bytes(100..<103) == [1, 2, 3])
        }
    }

    @Test("An open file is not given up, and one that is open with O_PATH is")
    func open() throws {
        try withFile { fixture in
            do {
                let reader = try fixture.lower("file", O_RDONLY)
                #expect(refusal(fixture)?.contains("open or mapped") == true)
                #expect(try reader.bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
            }
            let place = try Descriptor.openPlace(at: fixture.store.tree.root, Array("file".utf8))
            #expect(refusal(fixture) == nil)
            withExtendedLifetime(place) {}
        }
    }

    @Test("After a crash in the middle nothing of the file is believed, and it can be released again")
    func interrupted() throws {
        try withFile { fixture in
            try fixture.change { $0.state = .releasing }
            do {
                let file = try fixture.use()
                #expect(file.fill.present.isEmpty && !file.fill.isComplete)
                #expect(try fixture.store.describe(fixture.lower()).state == "offline")
            }
            // Released again, it gives back what was left.
            #expect(refusal(fixture) == nil)
            #expect(try fixture.record().state == .offline)
            #expect(try fixture.lower().seekData(from: 0) == nil)
        }
    }
}
