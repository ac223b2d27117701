import Glibc
import HSMSystem
import Testing

@testable import HSMStore

/// The residency map as a file.
@Suite struct SidecarTests {
    /// A directory with a map of epoch 7 in it.
    private final class Place {
        let fixture: StoreFixture
        let directory: Descriptor
        let session: Session

        init() throws {
            fixture = try StoreFixture()
            directory = fixture.store.partial
            session = fixture.store.session
        }

        deinit { fixture.remove() }

        func create(granules: Int = 2000) throws -> Sidecar {
            try Sidecar.create(in: directory, name: "map", epoch: 7, granules: granules, session: session)
        }

        func open(epoch: UInt64 = 7) throws -> Sidecar {
            try Sidecar.open(in: directory, name: "map", epoch: epoch, granules: 2000).sidecar
        }

        var raw: Descriptor {
            get throws { try Descriptor.open(at: directory.raw, "map", O_RDWR) }
        }

        /// What all pages say, by granule; nil for the pages that are damaged.
        func content(_ map: Sidecar) throws -> (
            present: [Int: Sidecar.Presence], checksums: [Int: UInt32], damaged: [Int]
        ) {
            var present: [Int: Sidecar.Presence] = [:]
            var checksums: [Int: UInt32] = [:]
            var damaged: [Int] = []
            try map.forEachPage { first, page in
                guard let page else { return damaged.append(first) }
                for granule in first..<first + Sidecar.granulesPerPage where page.presence(of: granule) != .absent {
                    present[granule] = page.presence(of: granule)
                    checksums[granule] = page.checksum(of: granule)
                }
            }
            return (present, checksums, damaged)
        }
    }

    @Test("A new map says that everything is absent, and is believed for its epoch")
    func new() throws {
        let place = try Place()
        #expect(try place.content(place.create()).present.isEmpty)
        let opened = try Sidecar.open(in: place.directory, name: "map", epoch: 7, granules: 2000)
        #expect(opened.session == place.session)
        #expect(try place.content(opened.sidecar).present.isEmpty)
        #expect(try place.raw.stat().st_size == 4 * 4096)
    }

    @Test("A map that is made anew forgets what the old one said")
    func recreated() throws {
        let place = try Place()
        try place.create().update(0..<5000) { page, granule in page.set(.written, of: granule) }
        #expect(try place.content(place.create()).present.isEmpty)
    }

    @Test("Every state and checksum comes back, at the edges of pages and far away")
    func states() throws {
        let place = try Place()
        let map = try place.create(granules: (1 << 40) + 1)
        var expected: [Int: Sidecar.Presence] = [:]
        let states: [Sidecar.Presence] = [.filled, .writtenVolatile, .written, .absent]
        for granule in [0, 1, 2, 3, 4, 958, 959, 960, 961, 1919, 1920, 1 << 30, (1 << 30) + 1, 1 << 40] {
            let state = states[granule % 4]
            try map.update(granule..<granule + 1) { page, granule in
                page.set(state, of: granule, checksum: UInt32(truncatingIfNeeded: granule &+ 1) | 1 << 31)
            }
            if state != .absent { expected[granule] = state }
        }
        try map.sync()
        let content = try place.content(place.open())
        #expect(content.present == expected)
        for granule in expected.keys {
            #expect(content.checksums[granule] == UInt32(truncatingIfNeeded: granule &+ 1) | 1 << 31)
        }
        #expect(try place.raw.stat().st_blocks * 512 < 64 << 10, "what is far away costs what it is, not what it spans")
    }

    @Test("A range over several pages is changed granule by granule, and its neighbours stay")
    func ranges() throws {
        let place = try Place()
        let map = try place.create()
        try map.update(900..<1990) { page, granule in page.set(.filled, of: granule, checksum: UInt32(granule)) }
        try map.update(1000..<1001) { page, granule in page.set(.absent, of: granule) }
        let content = try place.content(place.open())
        #expect(Set(content.present.keys) == Set(900..<1990).subtracting([1000]))
        #expect(content.checksums.allSatisfy { $0.key == Int($0.value) })
    }

    @Test("A map of another epoch is not believed")
    func epoch() throws {
        let place = try Place()
        _ = try place.create()
        for epoch in [UInt64(6), 8, 0] {
            #expect(throws: RecordError("the residency map is of another epoch")) { try place.open(epoch: epoch) }
        }
    }

    @Test("A missing, empty or shortened map is not believed")
    func missing() throws {
        let place = try Place()
        #expect(throws: RecordError.self) { try place.open() }
        _ = try place.create()
        for size in [4 * 4096 - 1, 4096, 4095, 100, 1, 0] {
            try place.raw.truncate(to: size)
            #expect(throws: RecordError.self, "\(size) bytes") { try place.open() }
        }
    }

    @Test("A header with any byte changed is not believed")
    func header() throws {
        let place = try Place()
        _ = try place.create()
        let file = try place.raw
        let good = try file.bytes(0..<4096)
        for offset in Array(0..<64) + [4000, 4095] {
            try file.put([good[offset] ^ 1], at: offset)
            #expect(throws: RecordError.self, "byte \(offset)") { try place.open() }
            try file.put([good[offset]], at: offset)
        }
        _ = try place.open()
    }

    @Test("A page with any byte changed is damaged; the other pages are not")
    func pages() throws {
        let place = try Place()
        try place.create().update(0..<2000) { page, granule in page.set(.filled, of: granule, checksum: 9) }
        let file = try place.raw
        let good = try file.bytes(8192..<12288)
        for offset in Array(0..<20) + [255, 256, 4095] {
            try file.put([good[offset] ^ 1], at: 8192 + offset)
            let content = try place.content(place.open())
            #expect(content.damaged == [960], "byte \(offset)")
            #expect(content.present.count == 2000 - 960)
            try file.put([good[offset]], at: 8192 + offset)
        }
        #expect(try place.content(place.open()).damaged == [])
    }

    @Test("A page in another page's place is damaged")
    func misplaced() throws {
        let place = try Place()
        try place.create().update(0..<2000) { page, granule in page.set(.filled, of: granule) }
        let file = try place.raw
        try file.put(file.bytes(4096..<8192), at: 8192)
        #expect(try place.content(place.open()).damaged == [960])
    }

    @Test("A page of zeros says that its granules are absent")
    func zeros() throws {
        let place = try Place()
        try place.create().update(0..<2000) { page, granule in page.set(.written, of: granule) }
        try place.raw.put([UInt8](repeating: 0, count: 4096), at: 8192)
        let content = try place.content(place.open())
        #expect(Set(content.present.keys) == Set(0..<960).union(1920..<2000) && content.damaged == [])
    }

    @Test("A damaged page is not written anew: it may be all that tells of local changes")
    func damagedUpdate() throws {
        let place = try Place()
        let map = try place.create()
        try map.update(0..<100) { page, granule in page.set(.written, of: granule) }
        try place.raw.put([0xaa], at: 4096 + 20)
        #expect(throws: Errno(rawValue: EIO)) {
            try map.update(200..<201) { page, granule in page.set(.filled, of: granule) }
        }
        #expect(try place.content(place.open()).damaged == [0])
    }
}
