import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// Where the files of a lower directory are, and how they get there.
@Suite struct LayoutTests {
    private func open(_ fixture: StoreFixture, create: Bool) throws -> Store {
        try Store.open(fixture.path.utf8CString.map { $0 }, create: create, purpose: "", log: StoreFixture.log)
    }

    private func shell(_ fixture: StoreFixture, _ script: String) throws {
        try #require(system("cd \(fixture.path) && { \(script)\n}") == 0, "\(script)")
    }

    /// What this prints in the lower directory.
    private func output(_ fixture: StoreFixture, _ script: String) throws -> String {
        let file = "/var/tmp/passhsm-output.\(getpid()).\(fixture.path.split(separator: ".").last ?? "")"
        defer { unlink(file) }
        try shell(fixture, "{ \(script)\n} >\(file)")
        return try String(decoding: Descriptor.open(file, O_RDONLY).bytes(0..<100_000), as: UTF8.self)
    }

    /// A lower directory as earlier versions made them: a file that is half there, and a directory, at the top.
    private func withOldStore(_ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 3 * StoreFixture.granule)
        try fixture.fillBeforeRestart(granules: 0..<1)
        try fixture.close()
        try shell(
            fixture,
            """
            mkdir .passhsm/tree/d; echo x >.passhsm/tree/d/f; mv .passhsm/tree/* .; rmdir .passhsm/tree
            rm NOT-MOUNTED.txt .passhsm/CACHEDIR.TAG; sed -i 's/^format=.*/format=1/; /^tree=/d' .passhsm/config
            """)
        try body(fixture)
    }

    private static let names = "find . -path ./.passhsm -prune -o -name 'NOT-*' -o -type f -print | sort"

    @Test("A new store has its files inside, at a top that is as the directory was; that has a note instead")
    func new() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try shell(
            fixture,
            """
            mkdir own; chown 1234:4321 own; chmod 2751 own; setfacl -m d:u:99:rx own; setfattr -n user.a -v b own
            """)
        let path = "\(fixture.path)/own"
        let store = try Store.open(
            path.utf8CString.map { $0 }, create: true, purpose: "", log: StoreFixture.log)
        #expect(store.layout == .inside && store.exposure == nil && store.namesOutside() == [])
        #expect(
            try output(fixture, "cd own; stat -c '%a %u %g' .passhsm/tree; stat -c %a .passhsm NOT-MOUNTED.txt")
                == "2751 1234 4321\n2700\n444\n")
        #expect(
            try output(fixture, "cd own; getfacl -c .passhsm/tree; getfattr -d .passhsm/tree | sed 1d")
                == output(fixture, "cd own; getfacl -c .; getfattr -d . | sed 1d"))
        #expect(try output(fixture, "head -2 own/.passhsm/config") == "format=2\ntree=inside\n")
        #expect(try output(fixture, "cat own/NOT-MOUNTED.txt").contains("passhsm mount"))
    }

    /// Signature, mode and owner of the tag; nothing when there is none.
    private static let tag =
        "cd .passhsm; test ! -f CACHEDIR.TAG || { head -c 43 CACHEDIR.TAG; echo; stat -c '%a %u' CACHEDIR.TAG; }"
    private static let goodTag = "Signature: 8a477f597d28d172789f06886806bc55\n600 \(geteuid())\n"

    @Test(
        "The folder of a store whose files are inside is tagged as a cache, for backups by root; a tag that is whole stays"
    )
    func cacheTag() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        #expect(try output(fixture, Self.tag) == Self.goodTag)
        for damage in ["rm CACHEDIR.TAG", "truncate -s 20 CACHEDIR.TAG", "echo other >CACHEDIR.TAG"] {
            try shell(fixture, "cd .passhsm; \(damage)")
            _ = try Store.inspect(fixture.path.utf8CString.map { $0 }, log: StoreFixture.log)
            #expect(try output(fixture, Self.tag) != Self.goodTag, "looking changes nothing")
            try fixture.restart()
            #expect(try output(fixture, Self.tag) == Self.goodTag, "\(damage)")
        }
        try shell(fixture, "cd .passhsm; echo mine >>CACHEDIR.TAG; touch -d 2001-01-01 CACHEDIR.TAG")
        try fixture.restart()
        #expect(
            try output(fixture, "cd .passhsm; tail -1 CACHEDIR.TAG; stat -c %Y CACHEDIR.TAG") == "mine\n978307200\n")
        // Nothing depends on it, and nothing is written through a link.
        try shell(fixture, "echo safe >target; ln -sf ../target .passhsm/CACHEDIR.TAG")
        try fixture.restart()
        #expect(try output(fixture, "cat target; ls -A .passhsm/tree") == "safe\n")
        try shell(fixture, "rm target .passhsm/CACHEDIR.TAG; mkdir .passhsm/CACHEDIR.TAG")
        try fixture.restart()
        #expect(fixture.store.layout == .inside)
    }

    @Test("Local files are moved in when that is asked for; a name that the tree has stays, and is told")
    func local() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub("taken", size: 10)
        try shell(
            fixture,
            "mkdir -p d/e; echo f >d/e/f; ln -s d l; echo mine >taken; rm NOT-MOUNTED.txt; echo mine >NOT-MOUNTED.txt")
        #expect(
            Set(fixture.store.namesOutside().map { String(decoding: $0, as: UTF8.self) })
                == ["d", "l", "taken", "NOT-MOUNTED.txt"])
        let modified = try output(fixture, "stat -c %.9Y .passhsm/tree")
        let left = try fixture.store.takeInNamesOutside()
        #expect(left.map(\.name) == [Array("taken".utf8)])
        #expect(try output(fixture, "stat -c %.9Y .passhsm/tree") == modified)
        #expect(try output(fixture, "cat taken .passhsm/tree/d/e/f .passhsm/tree/NOT-*") == "mine\nf\nmine\n")
        #expect(try output(fixture, "readlink .passhsm/tree/l; head -c 8 NOT-MOUNTED.txt") == "d\nPassHSM:")
        #expect(fixture.store.namesOutside() == [Array("taken".utf8)])
        #expect(try fixture.record("taken").state == .offline)
    }

    @Test("A mount point below, or a file that may not be renamed, is told before anything is moved")
    func obstacles() throws {
        for (make, undo, text) in [
            ("mkdir -p b/c; mount -t tmpfs none b/c", "umount b/c", "b/c is a mount point"),
            ("touch b; chattr +i b", "chattr -i b", "b is immutable"),
            ("touch b; chattr +a b", "chattr -a b", "b is immutable or append-only"),
        ] {
            let fixture = try StoreFixture()
            defer { fixture.remove() }
            try shell(fixture, "touch a z; \(make)")
            defer { _ = try? shell(fixture, undo) }
            do {
                _ = try fixture.store.takeInNamesOutside()
                Issue.record("moved")
            } catch { #expect(error.description.contains(text), "\(error)") }
            #expect(try output(fixture, "ls -d a b z; ls .passhsm/tree") == "a\nb\nz\n")
            // Those of an old store stay where they are, and can be used.
            try fixture.close()
            try shell(fixture, "rmdir .passhsm/tree; sed -i 's/^format=.*/format=1/; /^tree=/d' .passhsm/config")
            #expect(try open(fixture, create: true).layout == .top)
            #expect(try output(fixture, "ls -d a b z") == "a\nb\nz\n")
        }
    }

    @Test("A store of the first format goes on to work as it is, and what it means is said")
    func old() throws {
        try withOldStore { fixture in
            let store = try open(fixture, create: false)
            #expect(store.layout == .top && store.exposure?.contains("zeros") == true)
            let top = try Descriptor.openTop(Array(fixture.path.utf8))
            #expect(try FileHandle(of: store.tree.root) == FileHandle(of: top))
            let file = try Descriptor.open("\(fixture.path)/file", O_RDWR)
            #expect(try store.record(of: file)?.state == .partial)
            try store.save(store.configuration())
            #expect(try output(fixture, "head -1 .passhsm/config; \(Self.names)") == "format=1\n./d/f\n./file\n")
            #expect(try output(fixture, "ls -A") == ".passhsm\nd\nfile\n", "no note")
            #expect(try output(fixture, Self.tag) == "", "its folder has no files")
        }
    }

    @Test("An import moves the files of such a store in, with their records and residency maps, and that of the top")
    func moved() throws {
        try withOldStore { fixture in
            do {
                let store = try Store.inspect(fixture.path.utf8CString.map { $0 }, log: StoreFixture.log)
                let top = Record(
                    state: .dual,
                    object: RemoteObject(key: RemoteKey([]), version: RemoteVersion(Array("d1".utf8)), size: 0),
                    modified: .now, identity: try FileHandle(of: store.tree.root))
                try store.write(top, to: store.tree.root)
            }
            try shell(fixture, "chmod 2750 .; touch -d 2001-01-01 .")
            let before = try output(fixture, "stat -c '%a %.9Y' .")
            let store = try open(fixture, create: true)
            #expect(store.layout == .inside && store.exposure == nil)
            #expect(try output(fixture, "ls -A") == ".passhsm\nNOT-MOUNTED.txt\n")
            #expect(try output(fixture, Self.tag) == Self.goodTag)
            #expect(
                try output(fixture, "cd .passhsm/tree; \(Self.names); stat -c '%a %.9Y' .")
                    == "./d/f\n./file\n\(before)")
            #expect(try store.record(of: fixture.lower())?.state == .partial)
            #expect(try fixture.presences() == [1])
            #expect(try store.record(of: store.tree.root)?.object.version == RemoteVersion(Array("d1".utf8)))
            #expect(try store.record(of: store.tree.directory.place) == nil)
        }
    }

    @Test("Moving that broke off is ended by the next one who opens the store for use", arguments: [true, false])
    func brokenOff(create: Bool) throws {
        try withOldStore { fixture in
            try shell(
                fixture,
                "mkdir .passhsm/tree; mv d .passhsm/tree; sed -i '1s/.*/format=2\\ntree=moving/' .passhsm/config")
            let looking = try Store.inspect(fixture.path.utf8CString.map { $0 }, log: StoreFixture.log)
            #expect(looking.layout == .moving)
            #expect(try output(fixture, "ls -A") == ".passhsm\nfile\n", "looking changes nothing")
            #expect(try open(fixture, create: create).layout == .inside)
            #expect(try output(fixture, Self.tag) == Self.goodTag)
            #expect(try output(fixture, "cd .passhsm/tree; \(Self.names)") == "./d/f\n./file\n")
            #expect(
                try output(fixture, "ls -A; head -2 .passhsm/config")
                    == ".passhsm\nNOT-MOUNTED.txt\nformat=2\ntree=inside\n")
        }
    }
}
