import Glibc
import HSMCore
import HSMSystem

/// The residency map of one partial file on disk: the granules that are present, with a checksum each. Its pages of 4
/// KiB have checksums of their own. FORMAT.md has the format.
///
/// Not safe for concurrent use: the owner serialises.
final class ResidencyMap {
    /// A granule's state in a page.
    enum Presence: UInt8 {
        case absent = 0
        /// The remote's bytes, durable; the page has their checksum.
        case filled = 1
        /// Written locally, perhaps not durable: believed only while the lower mount of that time is still there.
        case writtenVolatile = 2
        /// Written locally and durable.
        case written = 3
    }

    static let pageSize = 4096
    static let granulesPerPage = 960
    private static let headerMagic = Array("PHSMMAP2".utf8)
    /// Has no count of pages but zeros in its place: a lost page is not noticed.
    private static let olderMagic = Array("PHSMMAP1".utf8)
    /// Page header: checksum, unused, number of the page.
    private static let pageHeader = 16
    private static let presenceBytes = granulesPerPage / 4

    /// The header's content.
    struct Header: Equatable {
        var epoch: UInt64
        var session: Session
        /// Count of pages that were written, durably: none of them can be all zeros again.
        var pages: UInt64 = 0

        init(epoch: UInt64, session: Session, pages: UInt64 = 0) {
            (self.epoch, self.session, self.pages) = (epoch, session, pages)
        }

        /// Decodes a map's first page, of either version; nil when it is damaged.
        init?(page: [UInt8]) {
            var reader = ByteReader(page)
            guard page.count == pageSize, reader.take(UInt32.self) == CRC32C.of(Array(page[4...])),
                let magic = reader.take(8).map(Array.init), magic == headerMagic || magic == olderMagic,
                let epoch = reader.take(UInt64.self),
                let session = reader.take(24).flatMap({ Session(bytes: Array($0)) }),
                let pages = reader.take(UInt64.self)
            else { return nil }
            self.init(epoch: epoch, session: session, pages: pages)
        }

        /// Encodes the map's first page.
        var page: [UInt8] {
            var body = ByteWriter()
            body.put(headerMagic)
            body.put(epoch)
            body.put(session.bytes)
            body.put(pages)
            body.put([UInt8](repeating: 0, count: pageSize - 4 - body.bytes.count))
            var page = ByteWriter()
            page.put(CRC32C.of(body.bytes))
            page.put(body.bytes)
            return page.bytes
        }
    }

    private let directory: Descriptor
    private let name: String
    /// Open only while there is something to sync: thousands of files may be incomplete and in use.
    private var unsynced: Descriptor?
    private var header: Header
    /// The header on disk is of an older version.
    private let isOutdated: Bool

    private init(_ name: String, in directory: Descriptor, _ header: Header, isOutdated: Bool = false) {
        self.directory = directory
        self.name = name
        self.header = header
        self.isOutdated = isOutdated
    }

    var session: Session { header.session }

    private func file() throws(Errno) -> Descriptor {
        if let unsynced { return unsynced }
        return try Descriptor.openOwn(at: directory, name, O_RDWR)
    }

    /// Makes an empty map for `granules` granules of content of `epoch`; it is durable when this returns.
    static func create(
        in directory: Descriptor, name: String, epoch: UInt64, granules: Int, session: Session
    ) throws(Errno) -> ResidencyMap {
        let file = try Descriptor.openOwn(at: directory, name, O_RDWR | O_CREAT | O_TRUNC)
        let residencyMap = ResidencyMap(name, in: directory, Header(epoch: epoch, session: session))
        try residencyMap.write(residencyMap.header, to: file)
        // The map has its whole length from the start: a map that lost its end would claim that there are no local
        // changes.
        try file.truncate(to: size(granules: granules))
        try file.fsync()
        try directory.fsync()
        return residencyMap
    }

    private static func size(granules: Int) -> Int {
        (1 + granules / granulesPerPage + (granules % granulesPerPage == 0 ? 0 : 1)) * pageSize
    }

    /// - Parameter granules: the least count that the map must have room for; it may have been made for more.
    /// - Throws: `RecordError` when the map is missing or cut off, or its header is not that of a map of `epoch`.
    static func open(
        in directory: Descriptor, name: String, epoch: UInt64, granules: Int
    ) throws(RecordError) -> ResidencyMap {
        let file: Descriptor
        do throws(Errno) {
            file = try Descriptor.openOwn(at: directory, name, O_RDWR)
        } catch {
            throw RecordError("the residency map cannot be opened: \(error.text)")
        }
        guard let page = try? readPage(0, of: file) else { throw RecordError("the residency map cannot be read") }
        guard let header = Header(page: page) else { throw RecordError("the residency map's header is damaged") }
        guard header.epoch == epoch else { throw RecordError("the residency map is of another epoch") }
        guard let length = try? file.stat().st_size, length >= size(granules: granules) else {
            throw RecordError("the residency map is cut off")
        }
        return ResidencyMap(name, in: directory, header, isOutdated: page[4..<12].elementsEqual(olderMagic))
    }

    /// Updates the header, after everything else is on disk: from then on volatile granules are believed in `session`,
    /// and the loss of one of the `pages` pages that were found is noticed.
    func confirm(_ session: Session, pages: Int) throws(Errno) {
        let new = Header(epoch: header.epoch, session: session, pages: UInt64(pages))
        if new == header && !isOutdated { return }
        let file = try file()
        unsynced = file
        try file.fdatasync()
        try write(new, to: file)
    }

    private func write(_ header: Header, to file: Descriptor) throws(Errno) {
        try write(header.page, page: 0, of: file)
        self.header = header
    }

    /// Calls `body` with each page that was ever written; with nil instead of the page when it is damaged.
    ///
    /// - Returns: the count of these pages, and the count of written pages that are now zeros or a hole.
    @discardableResult
    func forEachPage(
        _ body: (_ firstGranule: Int, Page?) throws(Errno) -> Void
    ) throws(Errno) -> (found: Int, missing: Int) {
        let file = try file()
        let size = try file.stat().st_size
        // The count is read before the pages: a page that is written meanwhile is counted later.
        let expected = Int(clamping: header.pages)
        var found = 0
        var offset = Self.pageSize
        while offset < size {
            // Holes read as zeros: such pages were never written, or the count tells that they were lost.
            let next = try file.seekData(from: offset)
            guard let next else { break }
            let number = max(1, next / Self.pageSize)
            let bytes = try Self.readPage(number, of: file)
            let first = (number - 1) * Self.granulesPerPage
            if bytes.contains(where: { $0 != 0 }) {
                found += 1
                try body(first, Page(bytes, number: number))
            }
            offset = (number + 1) * Self.pageSize
        }
        return (found, max(0, expected - found))
    }

    /// Changes the entries of `granules`. It reads the pages one by one, and writes those that change.
    ///
    /// - Throws: EIO for a page that is damaged.
    func update(_ granules: Range<Int>, _ change: (inout Page, _ granule: Int) -> Void) throws(Errno) {
        let file = try file()
        unsynced = file
        var next = granules.lowerBound
        var new = header
        while next < granules.upperBound {
            let number = next / Self.granulesPerPage + 1
            let end = min(granules.upperBound, number * Self.granulesPerPage)
            let bytes = try Self.readPage(number, of: file)
            // Written anew, a damaged page would claim that local writes are absent.
            guard var page = Page(bytes, number: number) else { throw Errno(rawValue: EIO) }
            let before = page
            for granule in next..<end { change(&page, granule) }
            next = end
            if page == before { continue }
            try write(page.sealed(), page: number, of: file)
            if bytes.allSatisfy({ $0 == 0 }) { new.pages += 1 }
        }
        guard new != header else { return }
        // If the page were counted before it is on disk, a power cut could make it look like a lost page.
        try file.fdatasync()
        try write(new, to: file)
    }

    func sync() throws(Errno) {
        let file = try file()
        try file.fdatasync()
        unsynced = nil
    }

    /// Drops the descriptor before ``sync()``, which then does not report a failed write: for changes whose loss does
    /// no harm.
    func dropDescriptor() { unsynced = nil }

    private static func readPage(_ page: Int, of file: Descriptor) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: pageSize)
        _ = try bytes.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: page * pageSize) }
        return bytes
    }

    private func write(_ bytes: [UInt8], page: Int, of file: Descriptor) throws(Errno) {
        try bytes.withBytes { buffer throws(Errno) in try file.write(buffer, at: page * Self.pageSize) }
    }

    /// The states of 960 granules.
    struct Page: Equatable {
        private var bytes: [UInt8]

        init(number: Int) {
            bytes = [UInt8](repeating: 0, count: ResidencyMap.pageSize)
            withUnsafeBytes(of: UInt64(number).littleEndian) { bytes.replaceSubrange(8..<16, with: $0) }
        }

        /// Nil when the checksum or the number is wrong. A page of zeros is an empty page.
        init?(_ bytes: [UInt8], number: Int) {
            if bytes.allSatisfy({ $0 == 0 }) {
                self = Page(number: number)
                return
            }
            var reader = ByteReader(bytes)
            guard let checksum = reader.take(UInt32.self), checksum == CRC32C.of(Array(bytes[4...])),
                reader.take(UInt32.self) != nil, reader.take(UInt64.self) == UInt64(number)
            else { return nil }
            self.bytes = bytes
        }

        func sealed() -> [UInt8] {
            var result = bytes
            withUnsafeBytes(of: CRC32C.of(Array(bytes[4...])).littleEndian) { result.replaceSubrange(0..<4, with: $0) }
            return result
        }

        func presence(of granule: Int) -> Presence {
            let index = granule % ResidencyMap.granulesPerPage
            return Presence(rawValue: bytes[ResidencyMap.pageHeader + index / 4] >> (index % 4 * 2) & 3) ?? .absent
        }

        mutating func set(_ presence: Presence, of granule: Int, checksum: UInt32 = 0) {
            let index = granule % ResidencyMap.granulesPerPage
            let byte = ResidencyMap.pageHeader + index / 4
            bytes[byte] = bytes[byte] & ~(3 << (index % 4 * 2)) | presence.rawValue << (index % 4 * 2)
            let place = ResidencyMap.pageHeader + ResidencyMap.presenceBytes + index * 4
            withUnsafeBytes(of: checksum.littleEndian) { bytes.replaceSubrange(place..<place + 4, with: $0) }
        }

        /// CRC32C of a `.filled` granule's bytes.
        func checksum(of granule: Int) -> UInt32 {
            let place =
                ResidencyMap.pageHeader + ResidencyMap.presenceBytes + granule % ResidencyMap.granulesPerPage * 4
            var reader = ByteReader(bytes[place..<place + 4])
            return reader.take(UInt32.self) ?? 0
        }
    }
}

/// Identifies one mounting of the lower file system. Earlier writes to the page cache are still there as long as it is
/// the same.
struct Session: Equatable {
    /// The kernel's boot id (16 bytes), and the lower mount's unique id (8 bytes).
    let bytes: [UInt8]

    var boot: ArraySlice<UInt8> { bytes.prefix(16) }

    init?(bytes: [UInt8]) {
        guard bytes.count == 24 else { return nil }
        self.bytes = bytes
    }

    /// The present session. Where the kernel gives no unique mount id, no two daemons share a session.
    static func current(of tree: LowerTree) -> Session {
        var boot = [UInt8](repeating: 0, count: 16)
        if let file = try? Descriptor.open("/proc/sys/kernel/random/boot_id", O_RDONLY) {
            var text = [UInt8](repeating: 0, count: 36)
            _ = text.withUnsafeMutableBytes { try? file.read(into: $0, at: 0) }
            let digits = text.filter { $0 != UInt8(ascii: "-") }
            for index in 0..<min(16, digits.count / 2) {
                boot[index] = UInt8(String(decoding: digits[index * 2..<index * 2 + 2], as: UTF8.self), radix: 16) ?? 0
            }
        }
        var mount = tree.directory.mountID
        if mount == 0 { mount = UInt64.random(in: 1...UInt64.max) }
        var writer = ByteWriter()
        writer.put(boot)
        writer.put(mount)
        return Session(joined: writer.bytes)
    }

    private init(joined bytes: [UInt8]) { self.bytes = bytes }
}
