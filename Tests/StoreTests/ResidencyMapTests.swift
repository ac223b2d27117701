import CLinux
import Glibc
import HSMSystem
import Testing

@testable import HSMStore

/// The residency map as a file.
@Suite struct ResidencyMapTests {
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

        func create(granules: Int = 2000) throws -> ResidencyMap {
            try ResidencyMap.create(in: directory, name: "map", epoch: 7, granules: granules, session: session)
        }

        func open(epoch: UInt64 = 7) throws -> ResidencyMap {
            try ResidencyMap.open(in: directory, name: "map", epoch: epoch, granules: 2000)
        }

        /// How many pages are found, and how many are missed.
        func pages() throws -> [Int] {
            let pages = try open().forEachPage { _, _ in }
            return [pages.found, pages.missing]
        }

        var raw: Descriptor {
            get throws { try Descriptor.open(at: directory.raw, "map", O_RDWR) }
        }

        /// What all pages say, by granule; nil for the pages that are damaged.
        func content(_ map: ResidencyMap) throws -> (
            present: [Int: ResidencyMap.Presence], checksums: [Int: UInt32], damaged: [Int]
        ) {
            var present: [Int: ResidencyMap.Presence] = [:]
            var checksums: [Int: UInt32] = [:]
            var damaged: [Int] = []
            try map.forEachPage { first, page in
                guard let page else { return damaged.append(first) }
                for granule in first..<first + ResidencyMap.granulesPerPage where page.presence(of: granule) != .absent
                {
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
        let opened = try ResidencyMap.open(in: place.directory, name: "map", epoch: 7, granules: 2000)
        #expect(opened.session == place.session)
        #expect(try place.content(opened).present.isEmpty)
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
        var expected: [Int: ResidencyMap.Presence] = [:]
        let states: [ResidencyMap.Presence] = [.filled, .writtenVolatile, .written, .absent]
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

    private static let pageSize = 4096

    @Test("A written page that is zeros now, or a hole, is missed; one that was never written is not")
    func zeros() throws {
        let place = try Place()
        let map = try place.create(granules: 5000)
        for granules in [0..<2, 1919..<1921, 4000..<4001] {
            try map.update(granules) { page, granule in page.set(.written, of: granule) }
        }
        #expect(try place.pages() == [4, 0])
        let file = try place.raw
        for page in [1, 2, 3, 5] {
            let range = page * Self.pageSize..<(page + 1) * Self.pageSize
            let good = try file.bytes(range)
            try file.put([UInt8](repeating: 0, count: Self.pageSize), at: range.lowerBound)
            #expect(try place.pages() == [3, 1], "page \(page)")
            try #require(passhsm_fallocate(file.raw, 3, range.lowerBound, Self.pageSize) == 0)
            #expect(try place.pages() == [3, 1], "page \(page) as a hole")
            try file.put(good, at: range.lowerBound)
        }
        #expect(try place.pages() == [4, 0])
    }

    @Test("A page that came to disk before it was counted is no damage, and is counted at the next use")
    func uncounted() throws {
        let place = try Place()
        let map = try place.create()
        try map.update(0..<1) { page, granule in page.set(.written, of: granule) }
        let header = try place.raw.bytes(0..<Self.pageSize)
        try map.update(1000..<1001) { page, granule in page.set(.written, of: granule) }
        try place.raw.put(header, at: 0)
        let opened = try place.open()
        #expect(try place.pages() == [2, 0])
        try opened.confirm(place.session, pages: 2)
        try place.raw.put([UInt8](repeating: 0, count: Self.pageSize), at: 2 * Self.pageSize)
        #expect(try place.pages() == [1, 1])
    }

    @Test("A map of version 1 is believed, and is of version 2 from its next use on")
    func older() throws {
        let place = try Place()
        try place.create().update(0..<1000) { page, granule in page.set(.written, of: granule) }
        let file = try place.raw
        var header = try file.bytes(0..<Self.pageSize)
        header[11] = UInt8(ascii: "1")
        for index in 44..<52 { header[index] = 0 }
        withUnsafeBytes(of: CRC32C.of(Array(header[4...])).littleEndian) { header.replaceSubrange(0..<4, with: $0) }
        try file.put(header, at: 0)
        let opened = try place.open()
        #expect(try place.content(opened).present.count == 1000)
        try opened.confirm(place.session, pages: 2)
        #expect(try file.bytes(4..<12) == Array("PHSMMAP2".utf8))
        try file.put([UInt8](repeating: 0, count: Self.pageSize), at: Self.pageSize)
        #expect(try place.pages() == [1, 1])
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
