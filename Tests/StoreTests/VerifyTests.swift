import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// What `passhsm verify` finds, and what it drops of it.
@Suite struct VerifyTests {
    private static let size = 10 * StoreFixture.granule - 100

    /// A clean partial file, a dirty one, a complete one and an offline one, that nobody uses.
    private func withFiles(_ body: (StoreFixture) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for name in ["clean", "dirty", "whole", "offline"] { try fixture.stub(name, size: Self.size) }
        do {
            let clean = try fixture.use("clean")
            try fixture.fill(granules: 2..<6, of: clean)
            try fixture.fill(granules: 9..<10, of: clean)
            try clean.stored.commit()
            let dirty = try fixture.use("dirty")
            try fixture.fill(granules: 0..<4, of: dirty)
            try dirty.stored.commit()
            try fixture.write(7, granules: 2..<3, to: dirty)
            try dirty.stored.commit()
            let whole = try fixture.use("whole")
            try fixture.fill(0..<Self.size, of: whole)
            try whole.stored.commit()
        }
        try fixture.restart()
        try body(fixture)
    }

    private func verify(_ fixture: StoreFixture, repairs: Bool = false) throws -> [Disagreement] {
        var findings: [Disagreement] = []
        let counts = try Verifier(fixture.store, repairs: repairs) { findings.append($0) }.run()
        #expect(counts.findings == findings.count)
        #expect(counts.dropped == findings.count { $0.outcome == .dropped })
        return findings
    }

    private func flip(_ name: String, at offset: Int) -> (StoreFixture) throws -> Void {
        { fixture throws in
            let file = try fixture.lower(name)
            let time = try file.stat().st_mtim
            try file.put([try #require(file.bytes(offset..<offset + 1).first) ^ 1], at: offset)
            try file.setTimes(access: FileTime.omit, modification: time)
        }
    }

    /// What is found once `damage` is done; a repair then leaves nothing that could be dropped.
    private func check(
        _ damage: (StoreFixture) throws -> Void, finds expected: (String, Disagreement.Kind, Range<Int>?),
        drops: Bool, afterwards: (StoreFixture) throws -> Void = { _ in }
    ) throws {
        try withFiles { fixture in
            try damage(fixture)
            let before = try fixture.snapshot()
            let found = try verify(fixture)
            #expect(found.count == 1)
            let finding = try #require(found.first)
            #expect(finding.path == Array(expected.0.utf8))
            #expect(finding.kind == expected.1 && finding.range == expected.2, "\(finding)")
            #expect(finding.outcome == (drops ? .found : .left))
            #expect(try fixture.snapshot() == before, "looking changes nothing")
            #expect(try verify(fixture, repairs: true).map(\.outcome) == [drops ? .dropped : .left])
            #expect(try verify(fixture).isEmpty == drops)
            if !drops { #expect(try fixture.snapshot() == before, "what is left is not touched") }
            try afterwards(fixture)
        }
    }

    @Test("There is nothing to find in files that are right, in whatever state")
    func right() throws {
        try withFiles { fixture in
            try File.local(fixture, "local")
            try fixture.stub("long", size: 5, key: [UInt8](repeating: 65, count: 2000))
            mkdir("\(fixture.tree)/directory", 0o755)
            try fixture.stub("directory/inside", size: 5)
            link("\(fixture.tree)/clean", "\(fixture.tree)/directory/linked")
            symlink("nowhere", "\(fixture.tree)/symlink")
            #expect(try verify(fixture).isEmpty)
            let counts = try Verifier(fixture.store, repairs: true) { Issue.record("\($0)") }.run()
            #expect(counts.files == 6 && counts.names == 10)
            #expect(counts.bytes == 4 * 4096 + (4096 - 100) + 3 * 4096 + Self.size)
        }
    }

    @Test("A changed byte of a granule is found, and only that granule is fetched again", arguments: [2, 5, 9])
    func data(granule: Int) throws {
        let range = granule * 4096..<min((granule + 1) * 4096, Self.size)
        try check(flip("clean", at: granule * 4096 + 77), finds: ("clean", .data, range), drops: true) {
            fixture throws in
            let file = try fixture.use("clean")
            #expect(file.granules == [2, 3, 4, 5, 9].filter { $0 != granule })
            try fixture.fill(0..<Self.size, of: file)
            #expect(try file.stored.lower.bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
        }
    }

    @Test("Neighbouring granules are one finding; absent ones are not looked at")
    func ranges() throws {
        try withFiles { fixture in
            for granule in [0, 2, 3, 5, 7] { try flip("clean", at: granule * 4096)(fixture) }
            let found = try verify(fixture, repairs: true)
            #expect(found.map(\.range) == [8192..<16_384, 20_480..<24_576])
            #expect(try fixture.use("clean").granules == [4, 9])
        }
    }

    @Test("A changed byte of a dirty file is told, and nothing of the file is dropped")
    func dirtyData() throws {
        try check(flip("dirty", at: 4096), finds: ("dirty", .data, 4096..<8192), drops: false) { fixture throws in
            #expect(try fixture.use("dirty").granules == [0, 1, 2, 3])
        }
    }

    @Test("A map that cannot be believed: a clean file is fetched again", arguments: MapDamageTests.Damage.allCases)
    func cleanMap(damage: MapDamageTests.Damage) throws {
        let isPage = damage == .page
        try check(
            { try damage.apply($0, "clean") }, finds: ("clean", .map, isPage ? 0..<Self.size : nil), drops: true
        ) { fixture throws in
            #expect(try fixture.record("clean").state == .offline && !fixture.hasMap("clean"))
            #expect(try fixture.lower("clean").stat().st_blocks <= 8, "its attributes may have a block")
            #expect(try fixture.lower("clean").stat().st_mtim.tv_sec == StoreFixture.modified.seconds)
            #expect(try fixture.use("clean").granules.isEmpty)
        }
    }

    @Test("A map that cannot be believed: a dirty file is left", arguments: MapDamageTests.Damage.allCases)
    func dirtyMap(damage: MapDamageTests.Damage) throws {
        let isPage = damage == .page
        try check(
            { try damage.apply($0, "dirty") }, finds: ("dirty", .map, isPage ? 0..<Self.size : nil), drops: false)
    }

    @Test("A record that is damaged, or another file's, is told and left", arguments: ["clean", "dirty", "whole"])
    func record(name: String) throws {
        let path: (StoreFixture) -> String = { "\($0.tree)/\(name)" }
        let damage: (StoreFixture) throws -> Void = { fixture throws in
            var value = try ExtendedAttributes.value(fixture.store.attribute, of: path(fixture))
            value[20] ^= 1
            try ExtendedAttributes.put(value, fixture.store.attribute, path(fixture))
        }
        try check(damage, finds: (name, .record, nil), drops: false)
        let copy: (StoreFixture) throws -> Void = { fixture throws in
            try #require(system("cp -a --sparse=always \(path(fixture)) \(fixture.tree)/copy") == 0)
        }
        try check(copy, finds: ("copy", .record, nil), drops: false)
    }

    @Test("A file whose record is gone is told when its map is still there")
    func lostRecord() throws {
        let damage: (StoreFixture) throws -> Void = { fixture throws in
            try ExtendedAttributes.remove(fixture.store.attribute, of: "\(fixture.tree)/dirty")
        }
        try check(damage, finds: ("dirty", .record, nil), drops: false) { fixture throws in
            #expect(try fixture.hasMap("dirty"))
        }
    }

    @Test("A clean file of another size is fetched again", arguments: ["clean", "offline", "whole"], [100, 50_000])
    func size(name: String, size: Int) throws {
        let cut: (StoreFixture) throws -> Void = { fixture throws in
            let file = try fixture.lower(name)
            let time = try file.stat().st_mtim
            try file.truncate(to: size)
            try file.setTimes(access: FileTime.omit, modification: time)
        }
        try check(cut, finds: (name, .size, nil), drops: true) { fixture throws in
            let file = try fixture.use(name)
            #expect(file.granules.isEmpty)
            try fixture.fill(0..<Self.size, of: file)
            #expect(try file.stored.lower.bytes(0..<60_000) == Pattern.bytes(0..<Self.size))
        }
    }

    @Test("A complete file that was changed in the lower directory itself is left")
    func changedBehind() throws {
        try check({ try $0.lower("whole").truncate(to: 5) }, finds: ("whole", .size, nil), drops: false)
    }

    @Test("The checksum of a granule that a truncation cut is not compared")
    func truncated() throws {
        try withFiles { fixture in
            do { try fixture.truncate(fixture.use("dirty"), to: 3 * 4096 + 5) }
            try fixture.restart()
            #expect(try verify(fixture).isEmpty)
        }
    }

    @Test("Maps and keys that no file needs are no finding: they are counted, and a repair removes them")
    func leftovers() throws {
        try withFiles { fixture in
            mkdir("\(fixture.path)/.passhsm/keys", 0o700)
            try fixture.restart()
            let whole = try FileHandle(of: fixture.lower("whole")).name
            for folder in ["partial", "keys"] {
                for name in ["0102030405060708", "nonsense"] + (folder == "partial" ? [whole] : []) {
                    try File.make("\(fixture.path)/.passhsm/\(folder)/\(name)")
                }
            }
            for repairs in [false, true, false] {
                let counts = try Verifier(fixture.store, repairs: repairs) { Issue.record("\($0)") }.run()
                let isLater = access("\(fixture.path)/.passhsm/keys/nonsense", F_OK) != 0
                #expect(counts.leftovers == (isLater && !repairs ? 0 : 5) && counts.findings == 0)
                #expect(isLater || !repairs)
            }
        }
    }

    @Test("A daemon that was killed in the middle of a local change leaves nothing to be found")
    func killed() throws {
        try withFiles { fixture in
            do {
                let dirty = try fixture.use("dirty")
                let granule = 0..<1
                try fixture.fill(granules: 5..<6, of: dirty)
                for granule in [granule, 5..<6] {
                    // Told before, and never after.
                    try dirty.stored.becomeDirty()
                    try dirty.stored.willWrite(granule)
                    try dirty.stored.lower.put([0xee, 0xee], at: granule.lowerBound * 4096 + 17)
                }
            }
            try fixture.restart()
            #expect(try verify(fixture).isEmpty)
            do {
                let dirty = try fixture.use("dirty")
                #expect(dirty.granules == [0, 1, 2, 3, 5])
                #expect(try dirty.bytes(granules: 0..<1)[17..<19].elementsEqual([0xee, 0xee]))
                // Cut, and not recorded.
                try dirty.stored.lower.truncate(to: 4096 + 5)
            }
            try fixture.restart()
            #expect(try verify(fixture).isEmpty)
        }
    }

    @Test("A complete file shows no error of before, whatever its record says")
    func oldError() throws {
        try withFiles { fixture in
            try fixture.change("whole") { record in
                record.flags.insert(.error)
                record.lastError = "EIO: long ago"
            }
            #expect(try fixture.record("whole").flags.isEmpty && fixture.record("whole").lastError.isEmpty)
            #expect(try verify(fixture).isEmpty)
        }
    }
}

private enum File {
    static func make(_ path: String) throws { _ = try Descriptor.open(path, O_WRONLY | O_CREAT, mode: 0o600) }

    static func local(_ fixture: StoreFixture, _ name: String) throws {
        try Descriptor.open("\(fixture.tree)/\(name)", O_WRONLY | O_CREAT, mode: 0o644).put([1, 2, 3], at: 0)
    }
}

extension StoreFixture {
    /// Everything that is on disk, as text.
    fileprivate func snapshot() throws -> String {
        let script = "cd \(path) && find . -printf '%p %s %T@ %y\\n' | sort && getfattr -d -m - -R . 2>/dev/null | sort"
        let pipe = try #require(popen("{ \(script); find . -type f ! -name lock -exec cksum {} + | sort; }", "r"))
        defer { pclose(pipe) }
        var text = ""
        var line = [CChar](repeating: 0, count: 4096)
        while fgets(&line, 4096, pipe) != nil {
            text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        return text
    }
}

extension ExtendedAttributes {
    fileprivate static func put(_ value: [UInt8], _ name: String, _ path: String) throws {
        // As in Descriptor.put: no typed closure for a function that throws any.
        var failure: Errno?
        value.withUnsafeBytes { bytes in
            do throws(Errno) { try set(name, of: path, to: bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
