import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// Files that are changed before they are complete.
@Suite struct LocalChangeTests {
    private static let granule = StoreFixture.granule
    private static let size = 10 * granule - 100

    /// A fixture with one file in use.
    private func withFile(_ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try body(fixture)
    }

    @Test("The record says dirty, and the map is there, before the first byte changes")
    func dirtyFirst() throws {
        try withFile { fixture in
            let file = try fixture.use()
            try file.stored.becomeDirty()
            let record = try fixture.record()
            #expect(record.flags.contains(.dirty) && record.state == .partial)
            #expect(try fixture.hasMap() && fixture.presences().isEmpty)
            #expect(try fixture.lower().bytes(0..<Self.size).allSatisfy { $0 == 0 })
        }
    }

    @Test("A map that cannot be made keeps the record clean, and the change from happening")
    func dirtyFails() throws {
        try withFile { fixture in
            let file = try fixture.use()
            let map = try fixture.map()
            mkdir(map, 0o755)
            #expect(throws: Errno(rawValue: EISDIR)) { try fixture.write(1, granules: 0..<1, to: file) }
            #expect(try !fixture.record().flags.contains(.dirty) && fixture.record().state == .offline)
            #expect(try file.bytes(granules: 0..<1).allSatisfy { $0 == 0 } && file.granules.isEmpty)
            rmdir(map)
            try fixture.write(1, granules: 0..<1, to: file)
            #expect(try fixture.record().flags.contains(.dirty) && file.granules == [0])
        }
    }

    @Test("A written granule survives a restart of the daemon before any commit, and is then made durable")
    func killed() throws {
        try withFile { fixture in
            do {
                let file = try fixture.use()
                try fixture.write(7, granules: 3..<5, to: file)
                #expect(try fixture.presences() == [0, 0, 0, 2, 2])
            }
            try fixture.restart()
            let file = try fixture.use()
            #expect(file.granules == [3, 4] && file.stored.hasPending)
            #expect(try file.bytes(granules: 3..<5).allSatisfy { $0 == 7 })
            fixture.store.drain()
            #expect(try fixture.presences() == [0, 0, 0, 3, 3])
            #expect(!file.stored.hasPending)
        }
    }

    @Test("What fsync has promised after a restart of the daemon holds in another session")
    func killedAndSynced() throws {
        try withFile { fixture in
            try fixture.write(7, granules: 3..<4, to: fixture.use())
            try fixture.restart()
            try fixture.use().stored.sync()
            try fixture.restart()
            try fixture.changeSession()
            #expect(try fixture.use().granules == [3])
        }
    }

    @Test("In another session what was written and not made durable is absent; what was stays")
    func otherSession() throws {
        try withFile { fixture in
            do {
                let file = try fixture.use()
                try fixture.fill(granules: 0..<1, of: file)
                try fixture.write(7, granules: 2..<3, to: file)
                try file.stored.commit()
                // Granules 0 and 2 are durable with either content; 5 is not, in the second page neither.
                try fixture.write(8, granules: 0..<1, to: file)
                try fixture.write(9, granules: 2..<3, to: file)
                try fixture.write(9, granules: 5..<6, to: file)
                #expect(try fixture.presences() == [3, 0, 3, 0, 0, 2])
            }
            try fixture.restart()
            try fixture.changeSession()
            let file = try fixture.use()
            #expect(file.granules == [0, 2])
            #expect(
                try fixture.presences() == [3, 0, 3], "what is not believed is taken out before the session is ours")
            try fixture.fill(granules: 5..<6, of: file)
            #expect(try file.bytes(granules: 5..<6) == Pattern.bytes(5 * 4096..<6 * 4096))
        }
    }

    @Test("A commit makes written granules durable, and takes nothing back")
    func commit() throws {
        try withFile { fixture in
            do {
                let file = try fixture.use()
                try fixture.fill(granules: 1..<2, of: file)
                try fixture.write(7, granules: 1..<3, to: file)
                try file.stored.commit()
                #expect(try fixture.presences() == [0, 3, 3])
                try fixture.write(8, granules: 2..<3, to: file)
                try fixture.write(8, granules: 4..<5, to: file)
                try file.stored.commit()
            }
            #expect(try fixture.presences() == [0, 3, 3, 0, 3])
            let record = try fixture.record()
            #expect(record.flags.contains(.dirty) && record.modified.seconds > StoreFixture.modified.seconds)
        }
    }

    @Test("A granule that was filled and overwritten before the commit is not recorded with the fill's checksum")
    func overwritten() throws {
        try withFile { fixture in
            let file = try fixture.use()
            try fixture.fill(granules: 0..<1, of: file)
            let commit = file.stored.beginCommit()
            try fixture.write(7, granules: 0..<1, to: file)
            try file.stored.end(commit, isSynced: false)
            #expect(try fixture.presences() == [2])
            try file.stored.commit()
            #expect(try fixture.presences() == [3])
        }
    }

    @Test("A file that is written whole is dual and dirty, without a fetch, and is not taken for the remote's")
    func whole() throws {
        try withFile { fixture in
            let file = try fixture.use()
            try fixture.write([UInt8](repeating: 7, count: Self.size), at: 0, to: file)
            #expect(file.fill.isComplete)
            try file.stored.commit()
            let record = try fixture.record()
            #expect(record.state == .dual && record.flags == .dirty)
            #expect(try !fixture.hasMap() && fixture.source.log.reads.isEmpty)
            #expect(try fixture.lower().stat().st_mtim.tv_sec > StoreFixture.modified.seconds)
        }
    }

    @Test("A write beyond the remote's end is local at once, and there after a restart")
    func appended() throws {
        try withFile { fixture in
            do {
                let file = try fixture.use()
                try fixture.write([1, 2, 3], at: 20 * Self.granule, to: file)
                #expect(file.granules.isEmpty && file.fill.isPresent(15 * Self.granule..<20 * Self.granule + 3))
            }
            try fixture.restart()
            let file = try fixture.use()
            #expect(try file.stored.lower.bytes(20 * Self.granule..<21 * Self.granule) == [1, 2, 3])
            #expect(file.fill.layout.limit == Self.size && file.stored.modified.seconds <= RemoteEntry.Time.now.seconds)
        }
    }

    @Test("Truncation lowers the limit durably; what grows back is local zeros, and the rest is still the remote's")
    func truncate() throws {
        try withFile { fixture in
            let cut = 3 * Self.granule + 10
            do {
                let file = try fixture.use()
                try fixture.fill(granules: 0..<1, of: file)
                try fixture.fill(granules: 8..<9, of: file)
                try fixture.truncate(file, to: cut)
                #expect(try fixture.record().limit == cut && fixture.record().flags.contains(.dirty))
                try fixture.truncate(file, to: Self.size)
                try file.stored.commit()
            }
            try fixture.restart()
            let file = try fixture.use()
            #expect(file.fill.layout.limit == cut && file.granules == [0])
            #expect(file.fill.isPresent(4 * Self.granule..<Self.size))
            try fixture.fill(0..<Self.size, of: file)
            let expected = Pattern.bytes(0..<cut) + [UInt8](repeating: 0, count: Self.size - cut)
            #expect(try file.stored.lower.bytes(0..<Self.size) == expected)
            try file.stored.commit()
            #expect(try fixture.record().state == .dual && fixture.record().flags == .dirty)
        }
    }

    @Test("After a crash between a truncation and its record the size is the limit")
    func truncationCrash() throws {
        try withFile { fixture in
            do {
                let file = try fixture.use()
                try fixture.write(7, granules: 1..<2, to: file)
                try file.stored.commit()
                try file.stored.lower.truncate(to: 5 * Self.granule + 1)
            }
            try fixture.restart()
            let file = try fixture.use()
            #expect(file.fill.layout.limit == 5 * Self.granule + 1 && file.fill.layout.count == 6)
            #expect(file.stored.record.limit == 5 * Self.granule + 1)
        }
    }

    @Test("A write through a file that a commit has finished meanwhile is marked and shows its time")
    func finishedMeanwhile() throws {
        try withFile { fixture in
            let file = try fixture.use()
            try fixture.fill(0..<Self.size, of: file)
            try file.stored.becomeDirty()
            try file.stored.lower.put([1], at: 0)
            try file.stored.commit()
            try file.stored.didWrite(0..<1)
            #expect(try file.stored.isFinished && fixture.record().flags == .dirty)
            #expect(try fixture.lower().stat().st_mtim.tv_sec > StoreFixture.modified.seconds)
        }
    }
}
