import CLinux
import Glibc
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMImport

@Suite struct ImportTests {
    @Test func `a stub has size, metadata and record of its file, and no data`() throws {
        let fixture = try ImportFixture(
            """
            head -c 300000 /dev/urandom > f; chown 12:34 f; chmod 6751 f; setfattr -n user.colour -v blue f
            setfacl -m u:99:rw f; : > empty; mkdir -p d; echo deep > d/g
            touch -a -d '2001-02-03 04:05:06.123456789Z' f; touch -m -d '1969-12-31 23:59:58.000000007Z' f
            """)
        defer { fixture.remove() }
        let summary = try fixture.run()
        #expect(summary.problems == [])
        #expect(summary.counts.new == 3)
        #expect(summary.counts.files == 3)
        #expect(summary.counts.directories == 1)
        #expect(summary.counts.bytes == 300_005)
        fixture.expectSame("%n %s %u %g %a %X %Y %.9X %.9Y", "f")
        fixture.expectSame("%n %s %u %g %a %.9Y", "f empty d d/g")
        fixture.shell("test \"$(getfattr -n user.colour --only-values lower/f)\" = blue")
        fixture.shell("test \"$(cd source; getfacl -n f)\" = \"$(cd lower; getfacl -n f)\"")
        let record = try #require(try fixture.record("f"))
        #expect(record.state == .offline)
        #expect(record.flags == [])
        #expect(record.object.key.description == "f")
        #expect(record.object.version.bytes.count == 17)
        #expect(record.object.size == 300_000)
        #expect(record.modified == .init(seconds: -2, nanoseconds: 7))
        #expect(try fixture.record("d/g")?.object.key.description == "d/g")
        #expect(try fixture.record("empty")?.state == .dual)
        #expect(try fixture.firstData("f") == nil)
        #expect(try fixture.store().configuration().isImported)
        #expect(try fixture.store().configuration().source == "file://\(fixture.path)/source")
    }

    @Test func `directories get their metadata after their content, with default ACLs that do not spread`() throws {
        let fixture = try ImportFixture(
            """
            mkdir -p a/b; echo x > a/b/f; echo y > a/plain; chmod 640 a/plain; mkdir a/bare; chmod 701 a/bare
            setfacl -d -m u:99:rwx a; setfattr -n user.x -v y a; chown 5:6 a/b; chmod 2750 a/b
            touch -d '2002-02-03 04:05:06.1Z' a/b/f a/plain; touch -d '2002-02-03 04:05:06.987654321Z' a/bare a/b a .
            """)
        defer { fixture.remove() }
        try fixture.run()
        fixture.expectSame("%n %u %g %a %.9Y", ". a a/b a/bare a/plain a/b/f")
        fixture.shell("test \"$(cd source; getfacl -Rn a)\" = \"$(cd lower; getfacl -Rn a)\"")
        // More files under the directory that has its ACL by now.
        fixture.shell("cd source; echo x > a/late; setfacl -b a/late; chmod 600 a/late; mkdir a/sub; setfacl -b a/sub")
        try fixture.run()
        fixture.expectSame("%n %u %g %a %.9Y", ". a a/b a/bare a/plain a/b/f a/late a/sub")
        fixture.shell("test \"$(cd source; getfacl -Rn a)\" = \"$(cd lower; getfacl -Rn a)\"")
    }

    @Test func `symlinks and special files are made as they are`() throws {
        let fixture = try ImportFixture(
            """
            ln -s '/no where' link; chown -h 7:8 link; mkfifo -m 604 fifo; mknod null c 1 3; chmod 666 null
            mknod disk b 7 300; python3 -c 'import socket; socket.socket(1).bind("socket")'
            ln link link2; ln fifo fifo2
            touch -h -d '2003-02-03 04:05:06.1Z' link fifo null disk socket
            """)
        defer { fixture.remove() }
        let summary = try fixture.run()
        #expect(summary.problems == [])
        #expect(summary.counts.new == 7)
        fixture.expectSame("%N %F %u %g %a %t %T %.9Y %h", "link fifo null disk socket link2 fifo2")
        #expect(try fixture.record("link")?.state == .dual)
        let second = try fixture.run()
        #expect(second.counts.new == 0)
        #expect(second.counts.unchanged == 7)
        #expect(second.problems == [])
    }

    @Test func `names of one file are names of one lower file`() throws {
        let fixture = try ImportFixture("mkdir d; echo x > a; ln a d/b; ln a d/c; echo y > single")
        defer { fixture.remove() }
        let summary = try fixture.run()
        #expect(summary.counts.files == 2)
        #expect(summary.counts.links == 2)
        #expect(summary.counts.bytes == 4)
        fixture.shell("test lower/a -ef lower/d/b && test lower/a -ef lower/d/c")
        fixture.expectSame("%n %h %.9Y", "a d/b d/c single d")
        let second = try fixture.run()
        #expect(second.counts.new == 0)
        #expect(second.counts.changed == 0)
        #expect(second.counts.unchanged == 4)
    }

    @Test func `names are bytes, up to 255 of them`() throws {
        let fixture = try ImportFixture(
            #"echo x > "$(printf 'bad\377\001name\nline')"; echo y > "$(printf '%0255d' 0)"; ln -s "$(printf '\376')" l"#
        )
        defer { fixture.remove() }
        #expect(try fixture.run().counts.new == 3)
        fixture.shell(#"test -f lower/"$(printf 'bad\377\001name\nline')" -a -f lower/"$(printf '%0255d' 0)""#)
        fixture.shell(#"test "$(readlink lower/l)" = "$(printf '\376')""#)
        #expect(try fixture.run().counts.unchanged == 3)
    }

    @Test func `a tree deeper than any path is imported, resumed, and removed`() throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        var directory = try Descriptor.openTop(Array("\(fixture.path)/source".utf8))
        let name = [UInt8](repeating: 0x64, count: 60)
        for _ in 0..<400 {
            try directory.makeDirectory(name, mode: 0o755)
            directory = try Descriptor.openDirectory(at: directory, name)
        }
        _ = try directory.makeFile([0x66], mode: 0o644)
        _ = try directory.makeFile([0x67], mode: 0o644).truncate(to: 12345)
        try directory.link([0x67], into: directory, [0x68])
        let first = try fixture.run()
        #expect(first.counts.new == 3)
        #expect(first.counts.directories == 400)
        #expect(first.problems == [])
        var lower = try Descriptor.openTop(Array(fixture.lower("").utf8))
        for _ in 0..<400 { lower = try Descriptor.openDirectory(at: lower, name) }
        let key = Array([[UInt8]](repeating: name, count: 400).joined(separator: [0x2f]))
        let record = try fixture.store().record(of: Descriptor.openPlace(at: lower, [0x67]))
        #expect([key + [0x2f, 0x67], key + [0x2f, 0x68]].contains(record?.object.key.bytes))
        #expect(try lower.stat([0x67]).st_ino == lower.stat([0x68]).st_ino)
        #expect(try fixture.run().counts.unchanged == 3)
        fixture.shell("rm -rf source/*")
        var deleting = fixture
        deleting.options.deleteGone = true
        deleting.options.deleteLimit = .percent(100)
        let last = try deleting.run()
        #expect(last.problems == [])
        #expect(last.counts.gone == 3)
        fixture.shell("test -z \"$(ls lower)\"")
    }

    @Test func `a sparse file of a huge size is a stub of that size`() throws {
        let fixture = try ImportFixture("truncate -s 8T huge; echo end >> huge")
        defer { fixture.remove() }
        #expect(try fixture.run().counts.bytes == 8 << 40 + 4)
        fixture.expectSame("%s", "huge")
    }

    @Test func `without O_TMPFILE stubs are built aside and moved into place`() throws {
        var fixture = try ImportFixture("mkdir d; echo x > d/f; ln d/f d/g; echo a > h; touch -d 2001-01-01 d/f d")
        defer { fixture.remove() }
        fixture.options.avoidsUnnamedFiles = true
        #expect(try fixture.run().problems == [])
        fixture.expectSame("%n %s %a %h %.9Y", "d d/f d/g h")
        #expect(try fixture.record("d/f")?.state == .offline)
        fixture.shell("echo longer > source/h; test -z \"$(ls dir/.passhsm/tmp)\"")
        #expect(try fixture.run().counts.changed == 1)
        fixture.expectSame("%n %s %a %.9Y", "h")
        fixture.shell("test -z \"$(ls dir/.passhsm/tmp)\"")
    }

    @Test func `an import that broke off is resumed`() throws {
        let fixture = try ImportFixture("mkdir a b; for i in $(seq 100); do echo $i > a/$i; echo $i > b/$i; done")
        defer { fixture.remove() }
        fixture.shell("touch -d 2001-01-01 source/a source/b")
        try fixture.run()
        // What a kill leaves: names that were not reached, a directory without its times, things under tmp.
        fixture.shell(
            "cd lower; rm -r b a/1?; touch a; cd ../dir/.passhsm; rm imported; cd tmp; mkdir import-1; touch import-2")
        let record = try #require(try fixture.record("a"))
        try fixture.change("a") { $0.object.version = .init([]) }
        let summary = try fixture.run()
        #expect(summary.counts.new == 110)
        #expect(summary.counts.unchanged == 90)
        #expect(summary.problems == [])
        #expect(try fixture.record("a")?.object == record.object)
        fixture.expectSame("%n %.9Y", "a b a/10 b/7")
        fixture.shell("test -z \"$(ls dir/.passhsm/tmp)\"")
    }

    @Test func `the counter finds as many names as the import`() throws {
        let fixture = try ImportFixture("mkdir -p a/b .passhsm/x; touch a/1 a/b/2 3; ln -s a l; mkfifo p")
        defer { fixture.remove() }
        let counter = TreeCounter(BytePath("\(fixture.path)/source"))
        try until("the count") { counter.total != nil }
        var last: ImportProgress?
        try fixture.run { last = $0 }
        #expect(last?.entries == 7)
        #expect(counter.total == 7)
    }

    @Test func `progress tells counts that end in the summary's`() throws {
        let fixture = try ImportFixture("for i in $(seq 200); do echo $i > $i; done")
        defer { fixture.remove() }
        var calls = 0
        var last: ImportProgress?
        let summary = try fixture.run { progress in
            calls += 1
            last = progress
        }
        #expect(calls > 3)
        #expect(last?.counts == summary.counts)
        #expect(last?.entries == 200)
    }
}
