import CLinux
import Glibc
import HSMCore
import HSMSystem
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

    @Test("A copied record does not get the long key of the other file either")
    func copiedLongKey() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 10, key: [UInt8](repeating: 0x61, count: 2000))
        let copy = try fixture.lower("copy", O_RDWR | O_CREAT)
        try set(value(fixture.lower(), fixture.store), of: copy, fixture.store)
        #expect(throws: RecordError.self) { try fixture.store.record(of: copy) }
    }

    @Test("A damaged record is not believed, and the file is not used")
    func damaged() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 10_000)
        let file = try fixture.lower()
        var bytes = try value(file, fixture.store)
        bytes[30] ^= 1
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
        system("cd \(fixture.path); mkdir d; mv file d/moved; ln d/moved link")
        #expect(try fixture.store.record(of: fixture.lower("link", PASSHSM_O_PATH)) == record)
        #expect(try fixture.record("d/moved") == record)
    }

    @Test("A key that the attribute has no room for is kept beside it, also when it changes")
    func longKey() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for byte in [UInt8(0x61), 0xff] {
            let key = [UInt8](repeating: byte, count: 4000)
            try fixture.stub(size: 5, key: key)
            #expect(try fixture.record().object.key.bytes == key)
        }
        try fixture.restart()
        #expect(try fixture.record().object.key.bytes.count == 4000, "opening keeps the keys of files that are there")
    }

    @Test("A missing, damaged or shortened file with the long key makes the record one that is not believed")
    func damagedLongKey() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 5, key: [UInt8](repeating: 0x61, count: 3000))
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

    @Test("A lower directory that has no attributes any more has no local files instead of stubs")
    func noAttributes() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        // What a mount without attributes answers: /proc has none.
        let file = try Descriptor.open("/proc/self/status", O_RDONLY)
        #expect(throws: RecordError.self) { try fixture.store.record(of: file) }
    }
}
