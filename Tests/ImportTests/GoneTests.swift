import HSMCore
import HSMStore
import Testing

@testable import HSMImport

@Suite struct GoneTests {
    @Test func `what is gone is marked as lost and kept, and found again when it comes back`() throws {
        let fixture = try ImportFixture("mkdir -p d/e; echo a > d/e/f; echo b > g; touch -d 2001-01-01 d/e/f g d/e d .")
        defer { fixture.remove() }
        try fixture.run()
        fixture.shell("echo a > lower/d/e/f; cp -a source keep; rm -r source/d source/g")
        try fixture.change("d/e/f") { $0.state = .dual }
        let summary = try fixture.run()
        #expect(summary.counts.gone == 2)
        #expect(summary.isClean)
        #expect(try fixture.record("d/e/f")?.flags == .lost)
        #expect(try fixture.record("d/e/f")?.state == .dual)
        #expect(try fixture.record("g")?.flags == .lost)
        fixture.shell("test $(cat lower/d/e/f) = a; rm -r source; mv keep source")
        let back = try fixture.run()
        #expect(back.counts.unchanged == 2)
        #expect(back.counts.gone == 0)
        #expect(try fixture.record("d/e/f")?.flags == [])
        #expect(try fixture.record("g")?.flags == [])
    }

    @Test func `deleting removes what is clean and gone, and nothing local`() throws {
        var fixture = try ImportFixture(
            "mkdir -p d/e k/l m; echo a > d/e/f; echo b > g; echo c > k/l/dirty; echo d > m/x; echo e > stay; ln -s q s"
        )
        defer { fixture.remove() }
        fixture.shell("touch -d 2001-01-01 source/m source/k source/k/l source")
        try fixture.run()
        fixture.shell("cd lower; mkdir d/own; echo mine > m/mine; mv stay renamed; mkdir mine; rm -r ../source/*")
        try fixture.change("k/l/dirty") {
            $0.state = .dual
            $0.flags = .dirty
        }
        fixture.options.deleteGone = true
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
        fixture.options.deleteGone = true
        let summary = try fixture.run()
        #expect(summary.problems == [])
        #expect(summary.counts.gone == 3)
        fixture.shell("test \"$(cd lower; ls -d * */*)\" = \"$(cd source; ls -d * */*)\"")
        fixture.expectSame("%n %.9Y", ". e e/g")
    }

    @Test func `what the source cannot read now is not gone`() throws {
        var fixture = try ImportFixture("mkdir d; echo a > d/f; echo b > g")
        defer { fixture.remove() }
        try fixture.run()
        fixture.options.deleteGone = true
        let failure = FillError(.io, .remoteFailed, "unplugged")
        for unreadable in ["d", ""] {
            let builder = try TreeBuilder(
                store: fixture.store(), granuleSize: GranuleLayout.defaultGranuleSize, options: fixture.options)
            let source = ScriptedSource([
                .enter(RemoteEntry(name: [], kind: .directory, metadata: .init())),
                .unreadable(RemoteKey(Array(unreadable.utf8)), failure), .leave,
            ])
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

/// A listing from memory.
private struct ScriptedSource: RemoteSource {
    let location = "script"
    let fetchUnit = 1 << 20
    let events: [RemoteEvent]

    init(_ events: [RemoteEvent]) { self.events = events }

    func read(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) { throw FillError(.io, .remoteFailed, "no content") }

    func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        throw FillError(.io, .remoteGone, "nothing is known of \(key)")
    }

    func list(_ body: (RemoteEvent) throws -> Void) async throws { for event in events { try body(event) } }
}

/// For a value that one thread uses after another.
private struct Unchecked<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
