import Glibc
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMImport

/// What a web server or a bucket lists.
private func listing(_ entries: [RemoteEntry]) -> FakeRemote {
    let inner = entries.flatMap { entry in
        entry.kind == .directory ? [RemoteEvent.enter(entry), .leave] : [.entry(entry)]
    }
    let top = RemoteEntry(name: [], kind: .directory, metadata: .init())
    return FakeRemote(.init(listing: [.enter(top)] + inner + [.leave]))
}

private func file(
    _ name: String, _ mode: UInt32? = nil, version: String = "one", owner: UInt32? = nil, group: UInt32? = nil
) -> RemoteEntry {
    var metadata = RemoteEntry.Metadata()
    (metadata.permissions, metadata.owner, metadata.group) = (mode, owner, group)
    let version = RemoteVersion(Array(version.utf8))
    let object = RemoteObject(key: RemoteKey(Array(name.utf8)), version: version, size: 3)
    return RemoteEntry(name: Array(name.utf8), kind: .file(object), metadata: metadata)
}

private func directory(_ name: String, _ mode: UInt32? = nil) -> RemoteEntry {
    var metadata = RemoteEntry.Metadata()
    metadata.permissions = mode
    return RemoteEntry(name: Array(name.utf8), kind: .directory, metadata: metadata)
}

extension ImportFixture {
    @discardableResult
    fileprivate func importRemote(_ entries: [RemoteEntry]) throws -> ImportSummary {
        let importer = Importer(
            try RemoteLocation("http://example.org/"), listing(entries),
            into: Array("\(path)/dir".utf8), options: options, log: Self.log)
        return try importer.run { _ in }
    }

    fileprivate var trusting: ImportFixture {
        var result = self
        result.options.mountSettings = [RemoteRights.trustSetting: "yes"]
        return result
    }

    /// Mode, owner and group.
    fileprivate func rights(_ name: String) throws -> [UInt32] {
        let status = try BytePath(lower(name)).linkStat()
        return [status.st_mode & 0o7777, status.st_uid, status.st_gid]
    }

    /// As a store is that an older import made.
    fileprivate func forgetThatRightsAreWithheld() { shell("sed -i /^rights=/d dir/.passhsm/config") }
}

/// What a web server or a bucket may say of owners and modes. These tests want root, like those of mounts.
@Suite struct RightsTests {
    private let me = [geteuid(), getegid()]

    @Test func `set-user-ID, set-group-ID, root and devices are not a remote's to give`() throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        let device = RemoteEntry(name: Array("null".utf8), kind: .characterDevice(0x103), metadata: .init())
        let summary = try fixture.importRemote([
            file("nobody", 0o4755), file("root", 0o6755, owner: 0, group: 0),
            file("user", 0o6750, owner: 1234, group: 1234), file("last", 0o644, owner: .max, group: .max), device,
            directory("group", 0o2770),
        ])
        #expect(try fixture.rights("nobody") == [0o755] + me)
        #expect(try fixture.rights("root") == [0o755] + me)
        #expect(try fixture.rights("user") == [0o750, 1234, 1234])
        #expect(try fixture.rights("last") == [0o644] + me)
        #expect(try fixture.rights("group") == [0o770] + me)
        fixture.shell("test ! -e lower/null")
        #expect(
            summary.problems.map { String(decoding: $0.path, as: UTF8.self) } == ["nobody", "root", "user", "null"])
        #expect(summary.counts.skipped == 4 && summary.isClean)
    }

    @Test(arguments: [
        "import.uid=me", "import.gid=4294967295", "import.file-mode=0999", "import.dir-mode=7777", "import.later=1",
        "mount.trust-remote-rights=perhaps",
    ])
    func `what is recorded of rights and not known keeps an import from beginning`(line: String) throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        try fixture.importRemote([file("file", 0o644)])
        fixture.shell("cp dir/.passhsm/config kept; echo '\(line)' >>dir/.passhsm/config; cp dir/.passhsm/config with")
        let error = #expect(throws: ImportError.self) {
            try fixture.importRemote([file("file", 0o644), file("new", 0o644)])
        }
        #expect(error?.description.hasPrefix("the recorded setting ") == true)
        fixture.shell("cmp dir/.passhsm/config with; test ! -e lower/new; cp kept dir/.passhsm/config")
        #expect(try fixture.importRemote([file("file", 0o644), file("new", 0o644)]).counts.new == 1)
    }

    @Test func `a remote that is trusted gives them, but lends nobody's rights whom it does not name`() throws {
        let fixture = try ImportFixture().trusting
        defer { fixture.remove() }
        let device = RemoteEntry(name: Array("null".utf8), kind: .characterDevice(0x103), metadata: .init())
        try fixture.importRemote([
            file("nobody", 0o6755), file("root", 0o4755, owner: 0, group: 0),
            file("user", 0o6755, owner: 1234, group: 1234), file("half", 0o6755, group: 1234), device,
        ])
        #expect(try fixture.rights("nobody") == [0o755] + me)
        #expect(try fixture.rights("root") == [0o4755, 0, 0])
        #expect(try fixture.rights("user") == [0o6755, 1234, 1234])
        #expect(try fixture.rights("half") == [0o2755, me[0], 1234])
        fixture.shell("test -c lower/null")
    }

    @Test func `the mode of what has none is the umask's, and options are before the remote`() throws {
        var fixture = try ImportFixture()
        defer { fixture.remove() }
        fixture.options.umask = 0o027
        try fixture.importRemote([file("a"), directory("d"), file("told", 0o666)])
        #expect(try fixture.rights("a") == [0o640] + me)
        #expect(try fixture.rights("d") == [0o750] + me)
        #expect(try fixture.rights("told") == [0o666] + me)
        fixture.options.rights.owner = 1234
        fixture.options.rights.group = 4321
        fixture.options.rights.fileMode = 0o440
        fixture.options.rights.directoryMode = 0o2550
        // Also names that are there.
        try fixture.importRemote([
            file("a"), file("b", 0o4755, owner: 0, group: 0), directory("d"), file("told", 0o666),
        ])
        for name in ["a", "b", "told"] { #expect(try fixture.rights(name) == [0o440, 1234, 4321], "\(name)") }
        #expect(try fixture.rights("d") == [0o2550, 1234, 4321])
        // They are recorded, for new names.
        fixture.options = Importer.Options()
        fixture.shell("chmod 400 lower/a; chown 0 lower/b; chmod 00700 lower/d")
        try fixture.importRemote([file("a"), file("b"), file("c"), directory("d")])
        #expect(try fixture.rights("a") == [0o400, 1234, 4321])
        #expect(try fixture.rights("b") == [0o440, 0, 4321])
        #expect(try fixture.rights("c") == [0o440, 1234, 4321])
        #expect(try fixture.rights("d") == [0o700, 1234, 4321])
    }

    @Test func `a second import leaves local rights, also where the content is another`() throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        try fixture.importRemote([directory("d", 0o755), file("new", 0o644), file("same", 0o644)])
        fixture.shell(
            """
            chmod 700 lower/d lower; chmod 600 lower/new lower/same; chown 1234:1234 lower/new lower/d
            setfacl -m u:4321:r lower/new; setfacl -m u:4321:rx,d:u:4321:rx lower/d
            getfacl -c lower/new lower/same lower/d lower >before
            """)
        var other = directory("d", 0o777)
        other.metadata.modificationTime = RemoteEntry.Time(seconds: 1000, nanoseconds: 0)
        let summary = try fixture.importRemote([other, file("new", 0o666, version: "two"), file("same", 0o644)])
        #expect(summary.counts.changed == 1)
        fixture.shell(
            """
            getfacl -c lower/new lower/same lower/d lower | diff before -
            test "$(stat -c '%u:%g %Y' lower/d)" = '1234:1234 1000' && test "$(stat -c %u:%g lower/new)" = 1234:1234
            """)
    }

    @Test func `set-user-ID that an older import has taken from a remote is taken away, and local one is not`() throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        let entries = [directory("d"), file("changed", 0o755), file("gone", 0o755), file("same", 0o755)]
        try fixture.importRemote(entries)
        // As an older version has left it, with files that are the user's own.
        fixture.shell(
            """
            chmod u+s lower/changed lower/gone lower/same; chmod g+s lower/d lower/same
            echo mine >lower/d/mine; chmod 4711 lower/d/mine
            """)
        fixture.forgetThatRightsAreWithheld()
        let next = [directory("d"), file("changed", 0o4755, version: "two"), file("same", 0o6755)]
        let summary = try fixture.importRemote(next)
        #expect(summary.isClean)
        for name in ["d", "changed", "gone", "same"] { #expect(try fixture.rights(name)[0] == 0o755, "\(name)") }
        #expect(try fixture.rights("d/mine")[0] == 0o4711)
        // From now on it is local.
        fixture.shell("chmod u+s lower/same")
        try fixture.importRemote(next)
        #expect(try fixture.rights("same")[0] == 0o4755)
        // A remote that was trusted and is no longer.
        try fixture.trusting.importRemote(next + [file("trusted", 0o4755, owner: 0, group: 0)])
        #expect(try fixture.rights("trusted")[0] == 0o4755)
        try fixture.importRemote(next)
        #expect(try fixture.rights("trusted")[0] == 0o4755, "it is recorded that the remote is trusted")
        var untrusting = fixture
        untrusting.options.mountSettings = [RemoteRights.trustSetting: "no"]
        try untrusting.importRemote(next)
        #expect(try fixture.rights("trusted")[0] == 0o755)
    }
}
