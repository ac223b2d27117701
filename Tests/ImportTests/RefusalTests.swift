import CLinux
import Glibc
import HSMCore
import HSMRemotes
import HSMSystem
import TestSupport
import Testing

@testable import HSMImport

@Suite struct RefusalTests {
    @Test func `a source and a lower directory inside each other are refused, and nothing is made`() throws {
        let fixture = try ImportFixture("mkdir -p sub; touch f")
        defer { fixture.remove() }
        fixture.refuses("is the source itself", into: "source")
        fixture.refuses("is inside the source", into: "source/lower")
        fixture.refuses("is inside the source", into: "source/sub")
        fixture.refuses("is inside", from: "source/sub", into: "source")
        fixture.shell("ln -s source/sub alias")
        fixture.refuses("is inside the source", into: "alias")
        fixture.shell("test $(find source | wc -l) = 3")
    }

    @Test func `what is no directory is refused`() throws {
        let fixture = try ImportFixture()
        defer { fixture.remove() }
        fixture.shell("touch file")
        fixture.refuses("Not a directory", into: "file")
        fixture.refuses("No such file", into: "none/lower")
        fixture.refuses("does not exist", from: "none")
        fixture.refuses("is not a directory", from: "file")
        fixture.shell("test ! -e dir")
    }

    @Test func `a lower directory in use is refused`() throws {
        let fixture = try ImportFixture("touch f")
        defer { fixture.remove() }
        try fixture.run()
        let lock = try Descriptor.open("\(fixture.path)/dir/.passhsm/lock", O_RDWR)
        #expect(flock(lock.raw, LOCK_EX) == 0)
        fixture.refuses("is in use")
    }

    @Test func `local files are moved in when the source answers, and not before`() throws {
        let fixture = try ImportFixture("touch f")
        defer { fixture.remove() }
        fixture.shell("mkdir -p dir/d; echo mine >dir/d/own")
        let silent = Importer(
            try RemoteLocation("\(fixture.path)/source"), FakeRemote.empty(), into: Array("\(fixture.path)/dir".utf8),
            log: ImportFixture.log)
        #expect(throws: FillError.self) { try silent.run { _ in } }
        fixture.shell("test $(cat dir/d/own) = mine")
        let summary = try fixture.run()
        #expect(summary.problems == [] && summary.counts.new == 1)
        fixture.shell("test $(cat lower/d/own) = mine && test -f lower/f && test \"$(ls dir)\" = NOT-MOUNTED.txt")
        // Made since, while nothing was mounted: one that is free, and one that is not.
        fixture.shell("echo late >dir/late; echo other >dir/f")
        let again = try fixture.run()
        #expect(again.problems.map(\.path) == [Array("f".utf8)] && !again.isClean)
        #expect("\(again.problems)".contains("the tree has its name"))
        fixture.shell("test $(cat lower/late) = late && test $(cat dir/f) = other && test ! -s lower/f")
    }

    @Test func `another source is refused, unless the lower directory is to be bound to it`() throws {
        var fixture = try ImportFixture("echo a > f; echo b > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cp -a source other; echo longer > other/g; echo new > other/h")
        fixture.refuses("was imported from file://\(fixture.path)/source", from: "other")
        fixture.options.rebind = true
        let summary = try fixture.run(from: "other")
        #expect(summary.counts.unchanged == 1)
        #expect(summary.counts.changed == 1)
        #expect(summary.counts.new == 1)
        #expect(try fixture.store().configuration().source == "file://\(fixture.path)/other")
        #expect(try fixture.store().configuration().isImported)
        fixture.options.rebind = false
        try fixture.run(from: "other")
    }

    @Test func `a missing lower directory is made`() throws {
        let fixture = try ImportFixture("touch f; chmod 755 .")
        defer { fixture.remove() }
        _ = try fixture.importer(into: "dir/").run { _ in }
        fixture.shell("test $(stat -c %a dir) = 755 && test -f lower/f")
    }
}
