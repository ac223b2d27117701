import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Testing

@testable import HSMImport

@Suite struct ReimportTests {
    @Test func `an unchanged source changes nothing`() throws {
        let fixture = try ImportFixture("mkdir d; echo a > d/f; echo b > g; ln -s x l; touch -d 2001-01-01 d")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd lower; stat -c '%n %i %Z %.9Z' d d/f g l . > ../before")
        let summary = try fixture.run()
        #expect(summary.counts.new == 0)
        #expect(summary.counts.changed == 0)
        #expect(summary.counts.unchanged == 3)
        fixture.shell("cd lower; stat -c '%n %i %Z %.9Z' d d/f g l . | diff ../before -")
    }

    @Test func `a changed file gets a fresh stub, and keeps its pin`() throws {
        let fixture = try ImportFixture("mkdir d; echo old > d/f; touch -d 2001-01-01 d")
        defer { fixture.remove() }
        try fixture.run()
        // As a fill would leave it.
        fixture.shell("echo old > lower/d/f; touch -r source/d/f lower/d/f")
        try fixture.change("d/f") {
            $0.state = .dual
            $0.flags = [.pinned, .stale]
        }
        fixture.shell("echo newer > source/d/f; chmod 600 source/d/f")
        let summary = try fixture.run()
        #expect(summary.counts.changed == 1)
        #expect(summary.counts.new == 0)
        #expect(summary.isClean)
        let record = try #require(try fixture.record("d/f"))
        #expect(record.state == .offline)
        #expect(record.flags == .pinned)
        #expect(record.object.size == 6)
        #expect(try fixture.firstData("d/f") == nil)
        fixture.expectSame("%n %s %a %.9Y", "d d/f")
        #expect(try fixture.run().counts.unchanged == 1)
    }

    @Test
    func `a rewritten file with size and time of before gets a fresh stub; a copy of the source elsewhere does not`()
        throws
    {
        var fixture = try ImportFixture("for f in f g h; do echo old > $f; touch -d 2001-01-01 $f; done")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("for f in f g h; do echo old > lower/$f; touch -r source/$f lower/$f; done")
        for name in ["f", "g", "h"] { try fixture.change(name) { $0.state = .dual } }
        // As an older import recorded it.
        let old = RemoteVersion(Array("978307200.000000000-4".utf8))
        fixture.shell("touch -d @978307200 source/h lower/h")
        try fixture.change("h") {
            $0.object.version = old
            $0.modified = .init(seconds: 978_307_200, nanoseconds: 0)
        }
        fixture.shell("cd source; cp -p f kept; echo new > f; touch -r kept f; rm kept")
        let summary = try fixture.run()
        #expect(summary.counts.changed == 1 && summary.counts.unchanged == 2)
        #expect(try fixture.record("f")?.state == .offline)
        #expect(try fixture.record("g")?.state == .dual)
        #expect(try fixture.record("h")?.state == .dual && fixture.record("h")?.object.version != old)
        fixture.shell("cp -a source other")
        let before = try fixture.record("g")?.object.version
        fixture.options.rebind = true
        #expect(try fixture.run(from: "other").counts.unchanged == 3)
        #expect(try fixture.record("g")?.state == .dual && fixture.record("g")?.object.version != before)
        // From now on it is the copy's.
        fixture.options.rebind = false
        fixture.shell("cd other; cp -p g kept; echo new > g; touch -r kept g; rm kept")
        #expect(try fixture.run(from: "other").counts.changed == 1)
    }

    @Test func `a complete file whose source changed its attributes alone keeps its content, and gets them`() throws {
        let fixture = try ImportFixture(
            "for f in f g h; do echo old > $f; setfattr -n user.a -v 1 $f; touch -d 2001-01-01 $f; done")
        defer { fixture.remove() }
        try fixture.run()
        // As fills leave them: g with bytes that are not the source's.
        fixture.shell("echo old > lower/f; echo bad > lower/g; for f in f g; do touch -r source/$f lower/$f; done")
        for name in ["f", "g"] {
            try fixture.change(name) {
                $0.state = .dual
                $0.flags = [.pinned, .stale]
            }
        }
        let before = try fixture.record("f")?.object.version
        fixture.shell(
            "cd source; chmod 600 f g h; chown 12:34 f g h; setfattr -x user.a f; setfattr -n user.b -v 2 f; ln f f2; rm f2"
        )
        let summary = try fixture.run()
        #expect(summary.isClean && summary.counts.unchanged == 1 && summary.counts.changed == 2)
        let record = try #require(try fixture.record("f"))
        #expect(record.state == .dual && record.flags == .pinned && record.contentChecksum != nil)
        #expect(record.object.version != before)
        fixture.shell(
            "test $(cat lower/f) = old; getfattr -d lower/f | grep -q user.b && ! getfattr -d lower/f | grep user.a")
        for name in ["g", "h"] {
            #expect(try fixture.record(name)?.state == .offline)
            #expect(try fixture.firstData(name) == nil)
        }
        fixture.expectSame("%n %s %a %u %g %.9Y", "f g h")
        #expect(try fixture.run().counts.unchanged == 3)
    }

    @Test func `a new version in the record moves no change time that is shown`() throws {
        let fixture = try ImportFixture("echo old > f; touch -d 2001-01-01 f")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("echo old > lower/f; touch -r source/f lower/f")
        try fixture.change("f") {
            $0.state = .dual
            $0.flags = .stale
        }
        usleep(50_000)
        func shown() throws -> [Int] {
            let time = try #require(try fixture.record("f")).changeTime(
                Descriptor.open(fixture.lower("f"), O_RDONLY).stat())
            return [time.tv_sec, time.tv_nsec]
        }
        let before = try shown()
        #expect(try fixture.run().counts.unchanged == 1)
        #expect(try fixture.record("f")?.flags == [] && shown() == before)
    }

    @Test func `a file with local changes is a conflict and stays, unless the source is as it was`() throws {
        let fixture = try ImportFixture("echo old > f; echo old > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("echo mine > lower/f; echo mine > lower/g; echo newer > source/f")
        for name in ["f", "g"] {
            try fixture.change(name) {
                $0.state = .dual
                $0.flags = .dirty
            }
        }
        let summary = try fixture.run()
        #expect(summary.counts.conflicts == 1)
        #expect(summary.counts.unchanged == 1)
        #expect(summary.problems.map(\.path) == [Array("f".utf8)])
        #expect(!summary.isClean)
        fixture.shell("test $(cat lower/f) = mine && test $(cat lower/g) = mine")
        #expect(try fixture.record("f")?.flags == .dirty)
    }

    @Test(arguments: ["truncate -s 2 lower/f", "printf NEW | dd of=lower/f conv=notrunc status=none"])
    func `a complete file that was changed unseen is a conflict when the source has another version`(
        change: String
    ) throws {
        let fixture = try ImportFixture("echo old > f; echo old > g")
        defer { fixture.remove() }
        try fixture.run()
        // As fills leave them: the content, and the recorded time.
        fixture.shell("for f in f g; do echo old > lower/$f; touch -r source/$f lower/$f; done")
        for name in ["f", "g"] { try fixture.change(name) { $0.state = .dual } }
        fixture.shell("\(change); cp -p lower/f kept; echo newer > source/f; echo newer > source/g")
        let summary = try fixture.run()
        #expect(summary.counts.conflicts == 1 && summary.counts.changed == 1)
        #expect(summary.problems.map(\.path) == [Array("f".utf8)])
        fixture.shell("cmp lower/f kept")
    }

    @Test func `what is local is never touched, whatever the source has under its name`() throws {
        let fixture = try ImportFixture(
            "mkdir d; echo s > f; echo s > g; ln -s s l; echo s > d/inside; echo s > h; mkdir i")
        defer { fixture.remove() }
        fixture.shell("mkdir dir; cd dir; echo mine > f; mkdir g; echo mine > g/x; echo mine > l; ln -s /tmp d")
        fixture.shell(
            "mkfifo dir/h; echo mine > dir/i; echo mine > dir/extra; mkdir dir/own; cp -a dir before")
        let summary = try fixture.run()
        #expect(summary.counts.conflicts == 6)
        #expect(
            Set(summary.problems.map { String(decoding: $0.path, as: UTF8.self) }) == ["f", "g", "l", "d", "h", "i"])
        #expect(summary.counts.new == 0)
        fixture.shell("diff -x h --no-dereference -r lower/ before")
        fixture.shell("test ! -e /tmp/inside")
        var deleting = fixture
        deleting.options.deleteGone = true
        #expect(try deleting.run().counts.gone == 0)
        fixture.shell("test $(cat lower/extra) = mine && test -d lower/own")
    }

    @Test func `a local directory is gone into, and keeps its own metadata`() throws {
        let fixture = try ImportFixture("mkdir d; echo s > d/f; chmod 700 d")
        defer { fixture.remove() }
        fixture.shell("mkdir -p dir/d; chmod 711 dir/d; touch -d 2005-01-01 dir/d")
        #expect(try fixture.run().counts.new == 1)
        fixture.shell("test $(stat -c %a-%Y lower/d) = 711-$(date -d 2005-01-01 +%s)")
    }

    @Test func `a name of another kind takes the place of what is clean`() throws {
        let fixture = try ImportFixture(
            "echo f > tolink; echo f > todir; ln -s x tofile; mkdir empty; mkfifo p; ln -s a l")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell(
            """
            cd source; rm -r *; ln -s y tolink; mkdir todir; echo in > todir/in; echo f > tofile; echo f > empty
            ln -s z p; ln -s b l
            """)
        let summary = try fixture.run()
        #expect(summary.problems == [])
        #expect(summary.counts.changed == 6)
        #expect(summary.counts.new == 1)
        fixture.expectSame("%N %F %s %.9Y", "tolink todir todir/in tofile empty p l")
        #expect(try fixture.record("tofile")?.state == .offline)
    }

    @Test func `a directory with content is in the way of a file, until deleting empties it`() throws {
        let fixture = try ImportFixture("mkdir -p d/e; echo f > d/e/f")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd source; rm -r d; echo file > d")
        #expect(try fixture.run().counts.conflicts == 1)
        fixture.shell("test -f lower/d/e/f")
        var deleting = fixture
        deleting.options.deleteGone = true
        let summary = try deleting.run()
        #expect(summary.problems == [])
        #expect(summary.counts.changed == 1)
        fixture.shell("test -f lower/d")
    }

    @Test func `a damaged or copied record is a conflict`() throws {
        let fixture = try ImportFixture("echo a > f; echo a > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd lower; cp -a --preserve=all g h; mv h g; setfattr -n trusted.passhsm -v junk f")
        let summary = try fixture.run()
        #expect(summary.counts.conflicts == 2)
        #expect(summary.counts.changed == 0)
    }

    @Test func `every name of a changed file leads to its fresh stub`() throws {
        let fixture = try ImportFixture("mkdir d; echo old > a; ln a d/b; ln a c")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("echo newer > source/c")
        let summary = try fixture.run()
        #expect(summary.counts.changed == 3)
        fixture.shell("test lower/a -ef lower/d/b && test lower/a -ef lower/c")
        fixture.expectSame("%n %s %h", "a d/b c")
        #expect(try fixture.run().counts.unchanged == 3)
    }

    @Test func `a file that loses the name under which it is recorded gets another key`() throws {
        for remaining in [1, 2] {
            let fixture = try ImportFixture("mkdir d; echo old > a; ln a d/b; ln a c")
            defer { fixture.remove() }
            try fixture.run()
            let key = try #require(try fixture.record("a")?.object.key.description)
            let others = ["a", "d/b", "c"].filter { $0 != key }
            fixture.shell("cd source; rm \(key) \(remaining == 1 ? others[1] : "")")
            let summary = try fixture.run()
            #expect(summary.problems == [])
            let record = try #require(try fixture.record(others[0]))
            #expect(others.prefix(remaining).contains(record.object.key.description))
            #expect(!record.flags.contains(.lost))
            #expect(try fixture.run().counts.changed == 0)
        }
    }

    @Test func `links that the source has made or broken since are made or broken`() throws {
        let fixture = try ImportFixture("echo one > a; echo two > b; echo three > x; ln x y")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd source; ln -f a b; cp -p x x2; mv x2 x; touch -d 2001-01-01 x")
        let summary = try fixture.run()
        #expect(summary.problems == [])
        fixture.shell("test lower/a -ef lower/b && test ! lower/x -ef lower/y")
        #expect(try fixture.record("x")?.object.key.description == "x")
        #expect(try fixture.record("y")?.object.key.description == "y")
        #expect(try fixture.run().counts.unchanged == 4)
    }
}
