import CLinux
import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// Records as attributes of real files.
@Suite struct StoredRecordTests {
    private func value(_ file: Descriptor, _ store: Store) throws -> [UInt8] {
        try file.withProcPath { path throws(Errno) in
            try ExtendedAttributes.value(store.attribute, of: path, .follow)
        }
    }

    private func set(_ value: [UInt8], of file: Descriptor, _ store: Store) throws {
        try file.withProcPath { path throws(Errno) in
            try value.withBytes { bytes throws(Errno) in
                try ExtendedAttributes.set(store.attribute, of: path, .follow, to: bytes)
            }
        }
    }

    @Test("A file without a record is local")
    func local() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let file = try fixture.lower("plain", O_RDWR | O_CREAT)
        #expect(try fixture.store.record(of: file) == nil)
        #expect(try fixture.store.use(file, engine: fixture.engine) == nil)
        if case .local = fixture.store.residence(of: file) {} else { Issue.record("not local") }
    }

    @Test("A record copied to another file is not believed, and the file is not used")
    func copied() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 10_000)
        let copy = try fixture.lower("copy", O_RDWR | O_CREAT)
        try copy.truncate(to: 10_000)
        try set(value(fixture.lower(), fixture.store), of: copy, fixture.store)
        #expect(throws: RecordError.self) { try fixture.store.record(of: copy) }
        if case .unknown = fixture.store.residence(of: copy) {} else { Issue.record("believed") }
        let error = #expect(throws: FillError.self) { try fixture.store.use(copy, engine: fixture.engine) }
        #expect(error?.code == .io && error?.reason == .recordCorrupt && error?.cause.contains("copied") == true)
        let state = try fixture.store.describe(copy)
        #expect(state.state == "unknown" && state.problem != nil && state.presentRanges.isEmpty)
    }

    @Test("A damaged record is not believed, and the file is not used")
    func damaged() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 10_000)
        let file = try fixture.lower()
        var bytes = try value(file, fixture.store)
        bytes[20] ^= 1
        try set(bytes, of: file, fixture.store)
        if case .unknown = fixture.store.residence(of: file) {} else { Issue.record("believed") }
        #expect(throws: FillError.self) { try fixture.store.use(file, engine: fixture.engine) }
        #expect(throws: Errno(rawValue: EIO)) { try fixture.store.markDirty(file) }
    }

    @Test("A record follows its file through rename and hard link, and is read through O_PATH")
    func renamed() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let record = try fixture.stub(size: 5)
        system("cd \(fixture.tree); mkdir d; mv file d/moved; ln d/moved link")
        #expect(try fixture.store.record(of: fixture.lower("link", PASSHSM_O_PATH)) == record)
        #expect(try fixture.record("d/moved") == record)
    }

    @Test("A lower directory that has no attributes any more has no local files instead of stubs")
    func noAttributes() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        // What a mount without attributes answers: /proc has none.
        let file = try Descriptor.open("/proc/self/status", O_RDONLY)
        #expect(throws: RecordError.self) { try fixture.store.record(of: file) }
    }

    // MARK: Records of format 1

    @Test("A record of format 1 is read, and is of format 2 when it is next written", arguments: [5, 3000])
    func migration(length: Int) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let key = [UInt8](repeating: 0x61, count: length)
        let record = try fixture.stub(size: 20_000, key: key)
        try fixture.writeAsFormat1(record)
        #expect(try fixture.value().starts(with: Array("PHSM".utf8)))
        try fixture.restart()
        #expect(try fixture.record() == record)
        let file = try fixture.use()
        try fixture.fill(granules: 0..<2, of: file)
        try file.stored.commit()
        #expect(try fixture.value().starts(with: [0x50, 2]) && fixture.value().count <= 64)
        #expect(try fixture.record().object == record.object && fixture.record().state == .partial)
        let size = try fixture.store.objects.size()
        try fixture.fill(granules: 2..<3, of: file)
        try file.stored.commit()
        try file.stored.setPinned(true)
        #expect(try fixture.store.objects.size() == size, "the object is not written again")
    }

    @Test("The key of a record of format 1 goes when the record does not need it any more, and with its file")
    func keysOfFormat1() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let long = [UInt8](repeating: 0x61, count: 2000)
        for name in ["old", "new", "gone"] {
            try fixture.writeAsFormat1(fixture.stub(name, size: 5, key: long), to: name)
        }
        // Into use as a program finds it.
        try fixture.restart()
        func keys() throws -> Int {
            try DirectoryReader.names(in: Descriptor.open("\(fixture.path)/.passhsm/keys", O_RDONLY)).count
        }
        #expect(try keys() == 3)
        try fixture.change("new") { $0.flags = .pinned }
        unlink("\(fixture.tree)/gone")
        #expect(try keys() == 3)
        try fixture.restart()
        #expect(try keys() == 1)
        for name in ["old", "new"] { #expect(try fixture.record(name).object.key.bytes == long) }
    }

    @Test("A missing, damaged or shortened file with the key of a record of format 1: it is not believed")
    func damagedKeyOfFormat1() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.writeAsFormat1(fixture.stub(size: 5, key: [UInt8](repeating: 0x61, count: 3000)))
        try fixture.restart()
        let key = "\(fixture.path)/.passhsm/keys/\(try FileHandle(of: fixture.lower()).name)"
        let file = try Descriptor.open(key, O_RDWR)
        let good = try file.bytes(0..<3004)
        for bad in [Array(good[..<3003]), Array(good[..<2]), [], good + [0], [good[0] ^ 1] + good[1...]] {
            try file.truncate(to: 0)
            try file.put(bad, at: 0)
            #expect(throws: RecordError.self) { try fixture.record() }
        }
        try file.put(good, at: 0)
        try file.truncate(to: good.count)
        #expect(try fixture.record().object.key.bytes.count == 3000)
        unlink(key)
        #expect(throws: RecordError.self) { try fixture.record() }
    }

    @Test("A store of format 1 that is half filled and dirty is read right, byte for byte")
    func halfFilledFormat1() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let size = 10 * 4096 - 100
        let names = ["offline", "clean", "dirty", "cut", "whole", "changed"]
        let long = [UInt8](repeating: 0x61, count: 2000)
        var content = [String: [UInt8]](uniqueKeysWithValues: names.map { ($0, Pattern.bytes(0..<size)) })
        for name in names { try fixture.stub(name, size: size, key: long + Array(name.utf8)) }
        do {
            for name in ["clean", "dirty", "cut"] {
                let file = try fixture.use(name)
                try fixture.fill(granules: 2..<4, of: file)
                try file.stored.commit()
            }
            for name in ["dirty", "cut"] {
                let file = try fixture.use(name)
                try fixture.write(7, granules: 5..<6, to: file)
                try file.stored.sync()
                content[name]?.replaceSubrange(
                    5 * 4096..<6 * 4096, with: try file.stored.lower.bytes(5 * 4096..<6 * 4096))
            }
            try fixture.truncate(fixture.use("cut"), to: 6 * 4096 + 5)
            content["cut"] = Array(try #require(content["cut"]).prefix(6 * 4096 + 5))
            for name in ["whole", "changed"] {
                let file = try fixture.use(name)
                try fixture.fill(0..<size, of: file)
                try file.stored.commit()
            }
            _ = try fixture.store.markDirtyForGood(fixture.lower("changed"))
            try fixture.lower("changed").put([1, 2, 3], at: 100)
            content["changed"]?.replaceSubrange(100..<103, with: [1, 2, 3])
        }
        for name in names {
            var record = try fixture.record(name)
            (record.contentChecksum, record.changed) = (nil, nil)
            try fixture.writeAsFormat1(record, to: name)
        }
        try fixture.restart()
        for _ in 0..<2 {
            for name in names {
                let bytes = try #require(content[name])
                if let file = try fixture.store.use(fixture.lower(name), engine: fixture.engine) {
                    let present = name == "offline" ? [] : name == "clean" ? [2, 3] : [2, 3, 5]
                    #expect(file.granules == present || file.fill.isComplete, "\(name)")
                    try fixture.fill(0..<bytes.count, of: file)
                    try file.stored.sync()
                }
                #expect(try fixture.lower(name).bytes(0..<size + 1) == bytes, "\(name)")
                #expect(try fixture.record(name).object.key.bytes == long + Array(name.utf8))
            }
            try fixture.restart()
        }
    }
}
