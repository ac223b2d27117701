import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// `.passhsm/`: opening it, its lock, its configuration and its leftovers.
@Suite struct StoreFolderTests {
    private func path(_ fixture: StoreFixture) -> [CChar] { fixture.path.utf8CString.map { $0 } }

    private func open(_ fixture: StoreFixture, create: Bool = false, purpose: String = "again") throws -> Store {
        try Store.open(path(fixture), create: create, purpose: purpose, log: StoreFixture.log)
    }

    private func message(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "no error"
    }

    @Test("A directory that was never imported is said to be so, by both ways of opening, and stays as it was")
    func notImported() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let bare = "\(fixture.path)/bare"
        mkdir(bare, 0o755)
        let path = bare.utf8CString.map { $0 }
        let expected = "\(bare) was never imported: there is no .passhsm in it"
        #expect(message { _ = try Store.inspect(path, log: StoreFixture.log) } == expected)
        #expect(
            message { _ = try Store.open(path, create: false, purpose: "", log: StoreFixture.log) } == expected)
        #expect(rmdir(bare) == 0)
        #expect(message { _ = try Store.inspect(path, log: StoreFixture.log) }.contains("No such file"))
    }

    @Test("A second user is told who has the lock; inspecting is possible all the same")
    func locked() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let expected = "\(fixture.path) is in use: pid \(getpid()), testing"
        #expect(message { _ = try open(fixture) } == expected)
        #expect(message { _ = try open(fixture, create: true) } == expected)
        _ = try Store.inspect(path(fixture), log: StoreFixture.log)
    }

    @Test("The lock goes with the store, and its note is the new holder's alone")
    func relocked() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.restart()
        let note = try Descriptor.open("\(fixture.path)/.passhsm/lock", O_RDONLY).bytes(0..<1000)
        #expect(String(decoding: note, as: UTF8.self) == "pid \(getpid()), testing\n")
    }

    @Test("The folder is nobody else's to read")
    func modes() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 5, key: [UInt8](repeating: 0x61, count: 100))
        for name in ["", "/partial", "/objects", "/tmp"] {
            #expect(try Descriptor.open("\(fixture.path)/.passhsm\(name)", O_RDONLY).stat().st_mode & 0o7777 == 0o700)
        }
    }

    @Test("A symlink in the place of the folder is not followed")
    func symlink() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let other = "\(fixture.path)/other"
        system("cd \(fixture.path); mkdir other; ln -s ../.passhsm other/.passhsm")
        #expect(message { _ = try Store.inspect(other.utf8CString.map { $0 }, log: StoreFixture.log) } != "no error")
    }

    @Test("The configuration comes back, and the attribute stays the one that was chosen")
    func configuration() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        #expect(fixture.store.attribute == "trusted.passhsm")
        var configuration = try fixture.store.configuration()
        #expect(configuration.source == "" && !configuration.isImported)
        configuration.source = "dir:/a=b c"
        configuration.isImported = true
        configuration.attribute = "user.passhsm"
        try fixture.store.save(configuration)
        let read = try Store.inspect(path(fixture), log: StoreFixture.log).configuration()
        #expect(read.source == "dir:/a=b c" && read.isImported && read.attribute == "trusted.passhsm")
    }

    @Test(
        "A configuration that is missing, of another format, or names another attribute is refused",
        arguments: [
            ("", "missing or empty"), ("format=3\nattribute=trusted.passhsm\n", "unknown format 3"),
            ("format=2\ntree=elsewhere\nattribute=trusted.passhsm\n", "unknown place: elsewhere"),
            ("format=1\nattribute=user.evil\n", "unknown attribute user.evil"), ("format=1\n", "missing or empty"),
        ])
    func badConfiguration(content: (text: String, error: String)) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let file = try Descriptor.open("\(fixture.path)/.passhsm/config", O_WRONLY | O_TRUNC)
        try file.put(Array(content.text.utf8), at: 0)
        #expect(message { _ = try Store.inspect(path(fixture), log: StoreFixture.log) }.contains(content.error))
    }

    @Test("A store that was made with privilege is not opened without it, nor is the reverse a problem")
    func privilege() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let path = path(fixture)
        let refusal = try withoutPrivilege { message { _ = try Store.inspect(path, log: StoreFixture.log) } }
        #expect(refusal == "\(fixture.path) was imported with privilege; its records need CAP_SYS_ADMIN to be read")
        let config = try Descriptor.open("\(fixture.path)/.passhsm/config", O_WRONLY | O_TRUNC)
        try config.put(Array("format=1\nattribute=user.passhsm\n".utf8), at: 0)
        #expect(try Store.inspect(path, log: StoreFixture.log).attribute == "user.passhsm")
        #expect(try withoutPrivilege { message { _ = try Store.inspect(path, log: StoreFixture.log) } } == "no error")
    }

    @Test("Without privilege a new store keeps its records in an attribute of users")
    func unprivileged() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        mkdir("\(fixture.path)/own", 0o755)
        let path = "\(fixture.path)/own".utf8CString.map { $0 }
        let attribute = try withoutPrivilege {
            (try? Store.open(path, create: true, purpose: "", log: StoreFixture.log))?.attribute ?? "none"
        }
        #expect(attribute == "user.passhsm")
    }

    /// Runs `body` on a thread of its own without CAP_SYS_ADMIN.
    private func withoutPrivilege(_ body: @escaping @Sendable () -> String) throws -> String {
        let outcome = Outcome<String>()
        try startThread(name: "nobody") {
            dropAdministration()
            outcome.finish(body())
        }
        return try #require(outcome.result(seconds: 60))
    }

    /// capset(2) for this thread: CAP_SYS_ADMIN is no longer effective. glibc exports it without declaring it.
    private func dropAdministration() {
        typealias Call = @convention(c) (UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Int32
        guard let get = dlsym(nil, "capget"), let set = dlsym(nil, "capset") else { return }
        // _LINUX_CAPABILITY_VERSION_3, and this thread; then effective, permitted and inheritable, twice.
        var header: [UInt32] = [0x2008_0522, 0]
        var data = [UInt32](repeating: 0, count: 6)
        guard unsafeBitCast(get, to: Call.self)(&header, &data) == 0 else { return }
        data[0] &= ~(1 << 21)
        _ = unsafeBitCast(set, to: Call.self)(&header, &data)
    }

    @Test("What is kept about files that are gone, and what was being built, is removed when the store is opened")
    func leftovers() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let long = [UInt8](repeating: 0x61, count: 2000)
        for name in ["gone", "file"] {
            try fixture.stub(name, size: 10_000, key: long)
            let file = try fixture.use(name)
            try fixture.fill(0..<4096, of: file)
            try file.stored.commit()
        }
        system("touch \(fixture.path)/.passhsm/tmp/unfinished \(fixture.path)/.passhsm/partial/nonsense")
        func count(_ folder: String) throws -> Int {
            try DirectoryReader.names(in: Descriptor.open("\(fixture.path)/.passhsm/\(folder)", O_RDONLY)).count
        }
        #expect(try (count("partial"), count("tmp")) == (3, 1))
        unlink("\(fixture.tree)/gone")
        _ = try Store.inspect(path(fixture), log: StoreFixture.log)
        #expect(try (count("partial"), count("tmp")) == (3, 1), "looking changes nothing")
        try fixture.restart()
        #expect(try (count("partial"), count("tmp")) == (1, 0))
        #expect(try fixture.hasMap())
        #expect(try fixture.record().object.key.bytes == long)
    }

    @Test("What is kept about one file is forgotten with it")
    func forget() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let record = try fixture.stub(size: 10_000, key: [UInt8](repeating: 0x61, count: 2000))
        do {
            let file = try fixture.use()
            try fixture.fill(0..<4096, of: file)
            try file.stored.commit()
        }
        try fixture.writeAsFormat1(record)
        try fixture.restart()
        fixture.store.forget(record.identity)
        #expect(try !fixture.hasMap())
        #expect(throws: RecordError.self) { try fixture.record() }
    }
}
