import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// `.passhsm/objects`: what records have no room for.
@Suite struct ObjectTableTests {
    private static let long = [UInt8](repeating: 0x61, count: 100)

    private func table(_ fixture: StoreFixture) throws -> Descriptor {
        try Descriptor.open("\(fixture.path)/.passhsm/objects/1", O_RDWR)
    }

    @Test("A key, a version and a digest that the record has no room for are kept in the table", arguments: [20, 5000])
    func longKey(length: Int) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for byte in [UInt8(0x61), 0xff] {
            let key = [UInt8](repeating: byte, count: length)
            let record = try fixture.stub(
                size: 5, key: key, digest: RemoteDigest(.sha1, [UInt8](repeating: 1, count: 20)))
            #expect(try fixture.record() == record && fixture.value().count <= 64)
            try fixture.restart()
            #expect(try fixture.record() == record)
        }
    }

    @Test("A short object is kept in the record, and no table is made")
    func short() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 5, key: [0x61])
        #expect(try fixture.record().object.key.bytes == [0x61])
        #expect(access("\(fixture.path)/.passhsm/objects", F_OK) != 0)
    }

    @Test("Entries follow one another, after a restart too, and are read at the place that the record says")
    func entries() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        var records: [Record] = []
        for index in 0..<40 {
            records.append(try fixture.stub("f\(index)", size: index, key: Self.long + [UInt8(index)]))
            if index == 20 { try fixture.restart() }
        }
        for index in 0..<40 { #expect(try fixture.record("f\(index)") == records[index]) }
        #expect(try fixture.store.objects.size() == ObjectTable.start.count + 40 * (4 + 1 + 1 + 1 + 2 + 101))
    }

    @Test("Damage of an entry, at any byte: its record is not believed, and the others are")
    func damage() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for name in ["a", "b", "c"] { try fixture.stub(name, size: 5, key: Self.long + Array(name.utf8)) }
        let file = try table(fixture)
        let good = try file.bytes(0..<10_000)
        let length = (good.count - 8) / 3
        for offset in 8 + length..<8 + 2 * length {
            for bit in [UInt8(1), 0x80] {
                try file.put([good[offset] ^ bit], at: offset)
                #expect(throws: RecordError.self, "byte \(offset)") { try fixture.record("b") }
                #expect(try fixture.record("a").object.key.bytes.last == 0x61)
                #expect(try fixture.record("c").object.key.bytes.last == 0x63)
                try file.put([good[offset]], at: offset)
            }
        }
        for size in [8 + length, 8 + 2 * length - 1, 8, 0] {
            try file.truncate(to: size)
            #expect(throws: RecordError.self) { try fixture.record("b") }
            try file.put(good, at: 0)
        }
        #expect(try fixture.record("b").object.key.bytes.last == 0x62)
    }

    @Test("The whole entry of another object, at the place of one, is not taken for it")
    func exchanged() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for name in ["a", "b"] { try fixture.stub(name, size: 5, key: Self.long + Array(name.utf8)) }
        let file = try table(fixture)
        let good = try file.bytes(8..<10_000)
        try file.put(Array(good[(good.count / 2)...] + good[..<(good.count / 2)]), at: 8)
        for name in ["a", "b"] { #expect(throws: RecordError.self) { try fixture.record(name) } }
        // Of a complete file that says nothing of its content.
        unlink("\(fixture.path)/.passhsm/objects/1")
        try fixture.restart()
        #expect(throws: RecordError.self) { try fixture.record("a") }
        if case .incomplete = fixture.store.residence(of: try fixture.lower("a")) {} else { Issue.record("not a stub") }
    }

    @Test("What a crash has left at the end of the table harms no entry that follows")
    func tornEnd() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub("a", size: 5, key: Self.long)
        let end = try table(fixture).stat().st_size
        for rest in [[1], [UInt8](repeating: 0, count: 5000), [UInt8](repeating: 0xff, count: 77)] as [[UInt8]] {
            try table(fixture).put(rest, at: table(fixture).stat().st_size)
            try fixture.restart()
            try fixture.stub("b", size: 5, key: Self.long + [1])
            #expect(try fixture.record("b").object.key.bytes == Self.long + [1])
        }
        #expect(try fixture.record("a").object.key.bytes == Self.long)
        try table(fixture).truncate(to: end)
        #expect(throws: RecordError.self) { try fixture.record("b") }
    }

    @Test("No record refers to an entry that could not be synced, and the next one is in another file")
    func failedSync() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let record = try fixture.stub("a", size: 5, key: Self.long)
        var changed = record
        changed.object.key = RemoteKey(Self.long + [1])
        let before = try fixture.value("a")
        let reference = try fixture.store.objects.append(changed.object)
        _ = try fixture.store.objects.beginTable()
        #expect(throws: Errno(rawValue: EIO)) { try fixture.store.objects.sync(reference) }
        #expect(try fixture.value("a") == before)
        try fixture.store.write(changed, to: fixture.lower("a"))
        #expect(try fixture.record("a") == changed && fixture.record("a").reference?.table == 2)
        try fixture.restart()
        #expect(try fixture.record("a") == changed)
    }

    @Test("Many records are written with their objects, and get short when these are on disk")
    func writer() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let writer = RecordWriter(fixture.store)
        var records: [Record] = []
        for index in 0..<300 {
            let file = try fixture.lower("f\(index)", O_RDWR | O_CREAT)
            let object = RemoteObject(
                key: RemoteKey(Self.long + Array("\(index)".utf8)), version: RemoteVersion([1]), size: 0)
            let record = Record(
                state: .dual, object: object, modified: StoreFixture.modified, identity: try FileHandle(of: file))
            try writer.write(record, to: file)
            records.append(record)
            #expect(try fixture.record("f\(index)") == record, "believed at any moment")
        }
        func isShort(_ index: Int) throws -> Bool { try fixture.value("f\(index)").count <= 64 }
        #expect(try isShort(0) && isShort(255) && !isShort(256) && !isShort(299))
        try fixture.change("f299") { $0.flags = .pinned }
        unlink("\(fixture.tree)/f298")
        try writer.flush()
        for index in 0..<298 {
            #expect(try fixture.record("f\(index)") == records[index] && isShort(index))
        }
        #expect(try fixture.record("f299").flags == .pinned && isShort(299))
    }
}
