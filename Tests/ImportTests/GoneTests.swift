import HSMCore
import HSMStore
import TestSupport
import Testing

@testable import HSMImport

@Suite struct GoneTests {
    @Test func `what is gone is marked as lost and kept, and found again when it comes back`() throws {
        let fixture = try ImportFixture(
            "mkdir -p d/e; echo a > d/e/f; echo b > d/g; touch -d 2001-01-01 d/e/f d/g d/e d .")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("echo a > lower/d/e/f; mv source/d keep")
        try fixture.change("d/e/f") { $0.state = .dual }
        let summary = try fixture.run()
        #expect(summary.counts.gone == 2)
        #expect(summary.isClean)
        #expect(try fixture.record("d/e/f")?.flags == .lost)
        #expect(try fixture.record("d/e/f")?.state == .dual)
        #expect(try fixture.record("d/g")?.flags == .lost)
        fixture.shell("test $(cat lower/d/e/f) = a; mv keep source/d")
        let back = try fixture.run()
        #expect(back.counts.unchanged == 2)
        #expect(back.counts.gone == 0)
        #expect(try fixture.record("d/e/f")?.flags == [])
        #expect(try fixture.record("d/g")?.flags == [])
    }

    @Test func `deleting removes what is clean and gone, and nothing local`() throws {
        var fixture = try ImportFixture(
            "mkdir -p d/e k/l m; echo a > d/e/f; echo b > g; echo c > k/l/dirty; echo d > m/x; echo e > stay; ln -s q s"
        )
        defer { fixture.remove() }
        fixture.shell("touch -d 2001-01-01 source/m source/k source/k/l source")
        try fixture.run()
        fixture.shell(
            "cd lower; mkdir d/own; echo mine > m/mine; mv stay renamed; mkdir mine; rm -r \(fixture.path)/source/*")
        try fixture.change("k/l/dirty") {
            $0.state = .dual
            $0.flags = .dirty
        }
        fixture.options.deleteGone = true
        fixture.options.deleteLimit = .percent(100)
        let summary = try fixture.run()
        #expect(summary.problems == [])
        fixture.shell(
            """
            cd lower; find . -name .passhsm -prune -o -print | LC_ALL=C sort | tr '\\n' ' ' > ../found
            test "$(cat ../found)" = ". ./d ./d/own ./k ./k/l ./k/l/dirty ./m ./m/mine ./mine ./renamed " ||
                { cat ../found; exit 1; }
            test $(stat -c %Y k/l) = $(date -d 2001-01-01 +%s)
            """)
        #expect(try fixture.record("k/l/dirty")?.flags == [.dirty, .lost])
    }

    @Test func `names of one file go together, with the directories that only they kept`() throws {
        var fixture = try ImportFixture(
            "mkdir -p a/b c/d e; echo x > a/b/f; ln a/b/f c/d/f; ln a/b/f e/f; echo y > e/g")
        defer { fixture.remove() }
        fixture.shell("touch -d 2001-01-01 source/e source")
        try fixture.run()
        fixture.shell("cd source; rm -r a c e/f; touch -d 2001-01-01 e .")
        fixture.options.deleteLimit = .percent(100)
        fixture.options.deleteGone = true
        let summary = try fixture.run()
        #expect(summary.problems == [])
        #expect(summary.counts.gone == 3)
        fixture.shell("test \"$(cd lower; ls -d * */*)\" = \"$(cd source; ls -d * */*)\"")
        fixture.expectSame("%n %.9Y", ". e e/g")
    }

    @Test func `more than the limit is not removed, and what is new is there`() throws {
        var fixture = try ImportFixture("mkdir d; for i in $(seq 100); do echo $i > d/f$i; done")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("cd source/d; rm f[1-9] f1[0-2]; echo new > new")
        fixture.options.deleteGone = true
        for (limit, isEnough) in [
            (DeleteLimit.usual, false), (.names(11), false), (.percent(10), false), (.names(12), true),
        ] {
            fixture.options.deleteLimit = limit
            let summary = try fixture.run()
            #expect((summary.refusal == nil) == isEnough, "\(limit)")
            fixture.shell("test $(ls lower/d | wc -l) = \(isEnough ? 89 : 101)")
            if isEnough { return #expect(summary.counts.gone == 12) }
            #expect(summary.refusal?.contains("12 of the 10") == true, "\(summary.refusal ?? "")")
            #expect(try fixture.record("d/f3")?.flags == [])
            #expect(try fixture.store().configuration().isImported)
        }
    }

    @Test func `a source that is empty removes nothing, unless everything may go`() throws {
        var fixture = try ImportFixture("mkdir d; echo a > d/f; echo b > g; chmod 711 .")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("rm -r source/*; chmod 700 source; cp dir/.passhsm/config config")
        fixture.options.deleteGone = true
        for limit in [DeleteLimit.usual, .percent(99), .names(1000)] {
            fixture.options.deleteLimit = limit
            fixture.refuses("the source is empty")
            fixture.shell(
                "cmp config dir/.passhsm/config; test -f lower/d/f -a -f lower/g; test $(stat -Lc %a lower) = 711")
            #expect(try fixture.record("g")?.flags == [])
        }
        fixture.options.deleteLimit = .percent(100)
        #expect(try fixture.run().counts.gone == 2)
        fixture.shell("test ! -e lower/d -a ! -e lower/g")
    }

    @Test func `a limit is a number or a percentage`() {
        #expect(
            DeleteLimit("10%") == .percent(10) && DeleteLimit("0") == .names(0)
                && DeleteLimit("100%")?.isEverything == true)
        for wrong in ["", "%", "101%", "-1", "+1", "1.5%", "x", "99999999999999999999"] {
            #expect(DeleteLimit(wrong) == nil)
        }
        let counts = [0, 1, 2, 9, 10, 49, 50, 51, 1000].map { DeleteLimit.usual.count(of: $0) }
        #expect(counts == [0, 1, 1, 5, 5, 5, 5, 6, 100])
        #expect(DeleteLimit.percent(0).count(of: 1000) == 0 && DeleteLimit.percent(1).count(of: 101) == 2)
    }

    @Test func `what the source cannot read now is not gone`() throws {
        var fixture = try ImportFixture("mkdir d; echo a > d/f; echo b > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.options.deleteGone = true
        fixture.options.restores = true
        let failure = FillError(.io, .remoteFailed, "unplugged")
        for unreadable in ["d", ""] {
            let source = FakeRemote(
                .init(listing: [
                    .enter(RemoteEntry(name: [], kind: .directory, metadata: .init())),
                    .unreadable(RemoteKey(Array(unreadable.utf8)), failure), .leave,
                ]))
            let builder = try TreeBuilder(
                store: fixture.store(), granuleSize: GranuleLayout.defaultGranuleSize, options: fixture.options,
                remote: ListedRemote(source))
            let summary = try waitFor { [builder = Unchecked(builder)] in
                try await builder.value.build(from: source) { _ in }
                return builder.value.summary
            }
            #expect(summary.counts.unreadable == 1)
            #expect(summary.problems.first?.cause == "unplugged")
            fixture.shell("test -f lower/d/f")
            fixture.shell("test \(unreadable.isEmpty ? "" : "!") -e lower/g")
            try fixture.run()
        }
    }
}

/// For a value that one thread uses after another.
private struct Unchecked<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
