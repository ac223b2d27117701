import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// The tables of remote objects get rid of the entries to which no record refers.
@Suite struct CompactorTests {
    private static func key(_ index: Int, _ version: Int) -> [UInt8] {
        [UInt8](repeating: 0x61, count: 60) + Array("\(index).\(version)".utf8)
    }

    private static let entry = 4 + 1 + 1 + 1 + 2 + 60 + 3

    private func change(_ fixture: StoreFixture, _ index: Int, to version: Int) throws {
        try fixture.change("f\(index)") { $0.object.key = RemoteKey(Self.key(index, version)) }
    }

    /// Ten files, each of which had `versions` objects.
    private func withFiles(versions: Int, _ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for index in 0..<10 {
            try fixture.stub("f\(index)", size: 5, key: Self.key(index, 0))
            for version in 1..<versions { try change(fixture, index, to: version) }
        }
        try body(fixture)
    }

    private func tables(_ fixture: StoreFixture) throws -> [String] {
        let folder = try Descriptor.open("\(fixture.path)/.passhsm/objects", O_RDONLY | O_DIRECTORY)
        return try DirectoryReader.names(in: folder).map { String(decoding: $0.dropLast(), as: UTF8.self) }.sorted()
    }

    private func compact(_ fixture: StoreFixture, expecting used: Int = 0, minGarbage: Int = 1) throws -> Int {
        try Compactor(fixture.store, minGarbage: minGarbage).run(expecting: used)
    }

    private static let size = ObjectTable.start.count + 10 * entry

    @Test("What no record refers to goes, and every record is what it was, after a restart too")
    func garbage() throws {
        try withFiles(versions: 4) { fixture in
            #expect(try fixture.store.objects.size() == ObjectTable.start.count + 40 * Self.entry)
            try fixture.change("f3") { $0.flags = [.pinned, .stale] }
            try fixture.change("f4") { $0.state = .dual }
            let records = try (0..<10).map { try fixture.record("f\($0)") }
            #expect(try compact(fixture) == 30 * Self.entry)
            for _ in 0..<2 {
                for index in 0..<10 {
                    var found = try fixture.record("f\(index)")
                    #expect(found.reference?.table == 2)
                    (found.changed, found.written) = (records[index].changed, records[index].written)
                    #expect(found == records[index])
                }
                #expect(try tables(fixture) == ["2"] && fixture.store.objects.size() == Self.size)
                try fixture.restart()
            }
            // New entries follow.
            try change(fixture, 0, to: 9)
            #expect(try fixture.record("f0").reference?.table == 2)
            #expect(try compact(fixture) == 0)
        }
    }

    @Test("The change time that is shown stays what it was")
    func changeTimes() throws {
        try withFiles(versions: 4) { fixture in
            usleep(50_000)
            func shown() throws -> [Int] {
                try (0..<10).map { index in
                    let time = try fixture.record("f\(index)").changeTime(fixture.lower("f\(index)").stat())
                    return time.tv_sec * 1_000_000_000 + time.tv_nsec
                }
            }
            let before = try shown()
            #expect(try compact(fixture) > 0)
            #expect(try shown() == before)
        }
    }

    @Test("Nothing is done while less than half is garbage, or little, or as the caller expects")
    func little() throws {
        try withFiles(versions: 1) { fixture in
            for index in 0..<9 { try change(fixture, index, to: 1) }
            #expect(try compact(fixture) == 0 && tables(fixture) == ["1"])
            for index in 0..<2 { try change(fixture, index, to: 2) }
            #expect(try compact(fixture, minGarbage: 1 << 20) == 0)
            #expect(try compact(fixture, expecting: 12 * Self.entry) == 0 && tables(fixture) == ["1"])
            #expect(try compact(fixture) == 11 * Self.entry)
        }
    }

    @Test("Directories, symlinks and further names have theirs too; names that are the same file count once")
    func kinds() throws {
        try withFiles(versions: 8) { fixture in
            try #require(system("cd \(fixture.tree); mkdir -p d/e; ln -s x d/l; ln f0 d/e/f0; mkfifo d/p") == 0)
            var objects: [String: RemoteObject] = [:]
            for (index, name) in [".", "d", "d/e", "d/l", "d/p"].enumerated() {
                let place = try Descriptor.open("\(fixture.tree)/\(name)", O_NOFOLLOW | 0x20_0000)
                let object = RemoteObject(
                    key: RemoteKey(Self.key(index, 100)), version: RemoteVersion([1]), size: 0)
                objects[name] = object
                try fixture.store.write(
                    Record(state: .dual, object: object, modified: .now, identity: try FileHandle(of: place)), to: place
                )
            }
            #expect(try compact(fixture) > 0 && tables(fixture) == ["2"])
            for (name, object) in objects {
                let place = try Descriptor.open("\(fixture.tree)/\(name)", O_NOFOLLOW | 0x20_0000)
                #expect(try fixture.store.record(of: place)?.object == object, "\(name)")
            }
            let size = try fixture.store.objects.size()
            #expect(size == Self.size + 5 * (Self.entry + 1))
        }
    }

    @Test("Where a record cannot be believed, or a name not be looked at, nothing is changed")
    func obstacles() throws {
        for (make, cause) in [
            ("cp --preserve=xattr f0 copy", "copied"),
            ("mv f0 ../../f0", "f0 is beside the tree"),
            (
                "printf x | dd of=../objects/1 bs=1 seek=\(3 * Self.entry + 48) conv=notrunc status=none",
                "f0: "
            ),
        ] {
            try withFiles(versions: 4) { fixture in
                try #require(system("cd \(fixture.tree); \(make)") == 0)
                let before = try (1..<10).map { try fixture.value("f\($0)") }
                do {
                    let freed = try compact(fixture)
                    Issue.record("\(make): \(freed) bytes were freed")
                } catch { #expect("\(error)".contains(cause), "\(make): \(error)") }
                #expect(try (1..<10).map { try fixture.value("f\($0)") } == before && tables(fixture) == ["1"])
            }
        }
    }

    @Test("A table stays as long as there is a record that could not be changed, and no other one")
    func immutable() throws {
        try withFiles(versions: 4) { fixture in
            try #require(system("chattr +i \(fixture.tree)/f3") == 0)
            defer { system("chattr -i \(fixture.tree)/f3") }
            #expect(try compact(fixture) == 0)
            #expect(try tables(fixture) == ["1", "2"])
            #expect(try compact(fixture) == 0)
            #expect(try tables(fixture) == ["1", "3"])
            try fixture.restart()
            for index in 0..<10 { #expect(try fixture.record("f\(index)").object.key.bytes == Self.key(index, 3)) }
            system("chattr -i \(fixture.tree)/f3")
            #expect(try compact(fixture) > 0)
            #expect(try tables(fixture) == ["4"] && fixture.store.objects.size() == Self.size)
        }
    }
}
