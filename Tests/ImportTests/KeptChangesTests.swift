import Glibc
import HSMCore
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMImport

/// What was changed in the lower directory, and the next import.
@Suite struct KeptChangesTests {
    private static let tree = """
        mkdir -p d/sub other; for f in d/a d/b d/sub/c other/x e; do echo $f > $f; done
        ln -s e link; echo h > h1; ln h1 h2
        """

    @Test func `what was removed or renamed here does not come back, until it is restored`() throws {
        var fixture = try ImportFixture(Self.tree)
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd lower; rm d/a link h2; mv e e2; mv other moved; rm -r d/sub")
        for round in 1...3 {
            fixture.shell("touch source/d/new\(round); touch source/d/sub/new\(round)")
            if round == 3 { fixture.shell("echo newer > source/d/a; touch source/other/x") }
            let summary = try fixture.run()
            #expect(summary.isClean && summary.counts.new == 1, "\(summary)")
            #expect(summary.counts.removed == 6)
            fixture.shell(
                """
                cd lower; find . -name .passhsm -prune -o -name 'new*' -o -print | LC_ALL=C sort | tr '\\n' ' ' > ../found
                test "$(cat ../found)" = ". ./d ./d/b ./e2 ./h1 ./moved ./moved/x " || { cat ../found; exit 1; }
                test $(ls d | grep -c new) = \(round)
                """)
        }
        #expect(try fixture.record("e2")?.object.key.description == "e")
        fixture.options.restores = true
        #expect(try fixture.run().counts.removed == 0)
        fixture.options.restores = false
        fixture.shell("cd source; for f in $(find . -type f -o -type l); do test -e ../lower/$f || exit 1; done")
        fixture.shell("test -f lower/e2")
        #expect(try fixture.run().counts.removed == 0)
    }

    @Test func `what the source makes anew after it was gone there comes, whatever was removed here`() throws {
        let fixture = try ImportFixture("echo a > f; echo b > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("rm lower/f source/f")
        try fixture.run()
        fixture.shell("echo again > source/f")
        #expect(try fixture.run().counts.new == 1)
        fixture.shell("test -f lower/f")
    }

    @Test func `owner, mode, ACLs and attributes that were changed here stay, and others follow the source`() throws {
        let fixture = try ImportFixture("mkdir d k; for f in f g h; do echo old > $f; setfattr -n user.a -v 1 $f; done")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell(
            """
            cd lower; chmod 600 f; chown 77:88 f; setfattr -n user.a -v mine g; setfacl -m u:99:r h; chmod 700 d
            setfattr -n user.own -v mine k
            """)
        for round in 1...2 {
            fixture.shell(
                """
                cd source; for f in f g h; do echo newer\(round) > $f; chmod 64\(round) $f; setfattr -n user.a -v 2 $f; done
                touch d/n\(round) k/n\(round); chmod 75\(round) d k; setfattr -n user.s -v \(round) k d
                """)
            let summary = try fixture.run()
            #expect(summary.counts.changed == 3 && summary.isClean)
            fixture.shell(
                """
                cd lower; test "$(stat -c %a-%u-%g f)" = 600-77-88; test $(getfattr --only-values -n user.a f) = 2
                test $(getfattr --only-values -n user.a g) = mine; test $(stat -c %a g) = 64\(round)
                getfacl -c h | grep -q user:99:r--; test $(getfattr --only-values -n user.a h) = 2
                test $(stat -c %a d) = 700; test $(getfattr --only-values -n user.s d) = \(round)
                test $(stat -c %a k) = 75\(round); test $(getfattr --only-values -n user.own k) = mine
                """)
            fixture.expectSame("%n %s %.9Y", "f g h d k")
        }
    }

    @Test func `an import that broke off says so, keeps what it knows, and is bound to its source`() throws {
        let fixture = try ImportFixture("echo a > f; echo b > g")
        defer { fixture.remove() }
        let failure = FillError(.io, .remoteFailed, "unplugged")
        func breaksOff(_ events: [RemoteEvent]) throws {
            let importer = Importer(
                try .init("\(fixture.path)/source"), FakeRemote(.init(listing: events, listingFailure: failure)),
                into: Array("\(fixture.path)/dir".utf8), log: ImportFixture.log)
            #expect(throws: failure) { try importer.run { _ in } }
        }
        let top = RemoteEvent.enter(RemoteEntry(name: [], kind: .directory, metadata: .init()))
        fixture.shell("cp -a source other")
        // Of nothing.
        try breaksOff([])
        try breaksOff([top])
        #expect(try fixture.store().configuration().source == "")
        try fixture.run(from: "other")
        fixture.shell("rm -r dir")
        // Of a part.
        let object = RemoteObject(key: RemoteKey(Array("f".utf8)), version: RemoteVersion([1]), size: 2)
        try breaksOff([top, .entry(RemoteEntry(name: Array("f".utf8), kind: .file(object), metadata: .init()))])
        let configuration = try fixture.store().configuration()
        #expect(!configuration.isImported && configuration.warning?.contains("import again") == true)
        fixture.refuses("was imported from", from: "other")
        fixture.shell("rm lower/f")
        let summary = try fixture.run()
        #expect(summary.counts.new == 1 && summary.counts.removed == 1, "f was there, and was removed here")
        #expect(try fixture.store().configuration().warning == nil)
        // Of a tree that was whole.
        try breaksOff([top])
        #expect(try fixture.store().configuration().isImported)
    }

    @Test func `a list of names that is damaged counts as none, and one that cannot be read is an error`() throws {
        let fixture = try ImportFixture("echo a > f; echo b > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("printf x | dd of=dir/.passhsm/imported bs=1 seek=20 conv=notrunc status=none; rm lower/f")
        #expect(try fixture.run().counts.new == 1)
        fixture.shell("cd dir/.passhsm; mv imported kept; ln -s kept imported")
        fixture.refuses("the list of imported names")
    }
}
