import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// Residency maps that cannot be believed: a clean file starts anew, a dirty one is refused.
@Suite struct MapDamageTests {
    enum Damage: CaseIterable, CustomTestStringConvertible {
        case missing, empty, header, page, zeros, hole, epoch

        var testDescription: String { "\(self)" }

        func apply(_ fixture: StoreFixture, _ name: String = "file") throws {
            switch self {
            case .missing: unlink(try fixture.map(name))
            case .empty: try Descriptor.open(fixture.map(name), O_RDWR).truncate(to: 0)
            case .header: try fixture.flip(25, ofMapOf: name)
            case .page: try fixture.flip(4096 + 300, ofMapOf: name)
            case .zeros:
                try Descriptor.open(fixture.map(name), O_RDWR).put([UInt8](repeating: 0, count: 4096), at: 4096)
            case .hole:
                let map = try Descriptor.open(fixture.map(name), O_RDWR)
                let size = try map.stat().st_size
                try map.truncate(to: 4096)
                try map.truncate(to: size)
            case .epoch:
                let name = try FileHandle(of: fixture.lower(name)).name
                _ = try ResidencyMap.create(
                    in: fixture.store.partial, name: name, epoch: 9,
                    granules: 10, session: fixture.store.session)
            }
        }
    }

    private static let size = 10 * StoreFixture.granule

    @Test("A clean file whose map cannot be believed starts anew in the next epoch", arguments: Damage.allCases)
    func clean(damage: Damage) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try fixture.fillBeforeRestart(granules: 0..<3)
        try damage.apply(fixture)
        #expect(try fixture.store.describe(fixture.lower()).presentRanges.isEmpty)
        #expect(try fixture.record().epoch == 1, "looking changes nothing")
        do {
            let file = try fixture.use()
            #expect(file.granules.isEmpty)
            #expect(try fixture.record().state == .offline && fixture.record().epoch == 2)
            try fixture.fill(granules: 5..<6, of: file)
            try file.stored.commit()
        }
        try fixture.restart()
        #expect(try fixture.use().granules == [5])
    }

    @Test(
        "A dirty file whose map cannot be believed is refused with EIO, again and again, and changed by nothing",
        arguments: Damage.allCases)
    func dirty(damage: Damage) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            try fixture.write(7, granules: 2..<3, to: file)
            try file.stored.commit()
        }
        try fixture.restart()
        try damage.apply(fixture)
        let record = try fixture.record()
        for _ in 0..<2 {
            let error = #expect(throws: FillError.self) {
                try fixture.store.use(fixture.lower(), engine: fixture.engine)
            }
            #expect(error?.code == .io && error?.reason == .recordCorrupt)
            #expect(error?.cause.hasSuffix("and the file has local changes") == true)
        }
        let state = try fixture.store.describe(fixture.lower())
        #expect(state.state == "unknown" && state.problem != nil)
        #expect(try fixture.record() == record)
        #expect(try fixture.lower().bytes(8192..<12288).allSatisfy { $0 == 7 })
    }

    @Test("The map of an older epoch is not believed after the content started anew, even when it comes back")
    func oldEpoch() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try fixture.fillBeforeRestart(granules: 0..<3)
        try fixture.change { $0.epoch += 1 }
        #expect(try fixture.use().granules.isEmpty)
    }

    @Test("A stale map is no reason to call an offline file's granules present")
    func offline() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try fixture.fillBeforeRestart(granules: 0..<3)
        try fixture.change { $0.state = .offline }
        let file = try fixture.use()
        #expect(file.granules.isEmpty)
        try fixture.fill(granules: 7..<8, of: file)
        try file.stored.commit()
        #expect(try fixture.presences() == [0, 0, 0, 0, 0, 0, 0, 1])
    }

    @Test("Granules beyond the limit are not present, whatever the map says")
    func beyond() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        do {
            let file = try fixture.use()
            try fixture.write(7, granules: 0..<9, to: file)
            try file.stored.commit()
            try fixture.truncate(file, to: 4 * StoreFixture.granule)
        }
        try fixture.restart()
        let file = try fixture.store.use(fixture.lower(), engine: fixture.engine)
        #expect(file?.granules == [0, 1, 2, 3] && file?.fill.isComplete == true)
    }
}
