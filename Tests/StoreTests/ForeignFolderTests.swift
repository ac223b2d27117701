import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// `.passhsm/` where somebody else could have changed it: the top of the tree may belong to a user.
@Suite struct ForeignFolderTests {
    private func open(_ fixture: StoreFixture, create: Bool = false) throws -> Store {
        try Store.open(
            fixture.path.utf8CString.map { $0 }, create: create, purpose: "again", log: StoreFixture.log)
    }

    private func inspect(_ fixture: StoreFixture) throws -> Store {
        try Store.inspect(fixture.path.utf8CString.map { $0 }, log: StoreFixture.log)
    }

    private func message(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "no error"
    }

    /// A store whose lock is free, in a fixture that is not used any more.
    private func withClosedStore(_ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        // What was opened for looking has no lock.
        try fixture.close()
        try body(fixture)
    }

    @Test(
        "A folder, or one in it, that belongs to another user or that others may write is refused, and told why",
        arguments: ["", "/partial", "/keys", "/objects", "/tmp"], ["chown 65534", "chmod g+w", "chmod o+w"])
    func foreignFolder(name: String, change: String) throws {
        try withClosedStore { fixture in
            let store = "\(fixture.path)/.passhsm"
            system("mkdir -m 700 \(store)/keys \(store)/objects && \(change) \(store)\(name)")
            for text in [
                message { _ = try open(fixture) }, message { _ = try open(fixture, create: true) },
                message { _ = try inspect(fixture) },
            ] {
                #expect(text.contains("is not of user 0 alone") && text.contains(".passhsm"), "\(text)")
            }
        }
    }

    @Test(
        "A configuration that is not the user's own, or is a link, is an error, and not one that is missing",
        arguments: [
            "chown 65534 config", "chmod o+w config", "mv config x; ln -s x config", "ln config x",
            "rm config; mkfifo config", "rm config; mkdir config", "head -c 70000 /dev/zero | tr '\\0' '\\n' >>config",
        ])
    func foreignConfiguration(change: String) throws {
        try withClosedStore { fixture in
            system("cd \(fixture.path)/.passhsm && { \(change); }")
            for text in [message { _ = try open(fixture, create: true) }, message { _ = try inspect(fixture) }] {
                #expect(text.hasPrefix("the store's configuration"), "\(text)")
            }
        }
    }

    @Test(
        "A link in the place of a file of the store is not followed: what it leads to keeps its content",
        arguments: ["ln -s", "ln"])
    func links(link: String) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let (precious, store) = ("\(fixture.path)/precious", "\(fixture.path)/.passhsm")
        system("echo precious >\(precious)")
        let long = [UInt8](repeating: 0x61, count: 2000)
        let record = try fixture.stub(size: 10_000, key: [0x61])
        let name = record.identity.name
        mkdir("\(store)/objects", 0o700)
        // The table of objects, the map and the configuration are made anew.
        for file in ["objects/1", "partial/\(name)", "config.new"] { system("\(link) \(precious) \(store)/\(file)") }
        var changed = record
        changed.object.key = RemoteKey(long)
        #expect(throws: Errno.self) { try fixture.store.write(changed, to: fixture.lower()) }
        #expect(try fixture.record() == record)
        #expect(throws: Errno.self) {
            try ResidencyMap.create(
                in: fixture.store.partial, name: name, epoch: 1, granules: 10,
                session: .current(of: fixture.store.tree))
        }
        #expect(throws: RecordError.self) {
            try ResidencyMap.open(in: fixture.store.partial, name: name, epoch: 1, granules: 10)
        }
        #expect(throws: StoreError.self) { try fixture.store.save(fixture.store.configuration()) }
        try fixture.close()
        system("ln -sf \(precious) \(store)/lock")
        #expect(message { _ = try open(fixture) }.contains("lock is not of user 0 alone"))
        #expect(try Descriptor.open(precious, O_RDONLY).bytes(0..<100) == Array("precious\n".utf8))
    }

    @Test("A line break in what the configuration holds is refused: it would be a line of its own")
    func lineBreak() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        var configuration = try fixture.store.configuration()
        configuration.authorities = "/tmp/a\nsource=file:///etc"
        #expect(throws: StoreError.self) { try fixture.store.save(configuration) }
        #expect(try fixture.store.configuration().source == "")
    }
}
