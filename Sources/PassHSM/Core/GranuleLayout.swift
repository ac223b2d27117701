/// How a file is divided into granules. A granule is either wholly present or absent.
package struct GranuleLayout: Hashable, Sendable {
    /// The size of a granule in bytes; a power of two.
    package let granuleSize: Int
    /// Bytes `[0, limit)` may have to come from the remote; everything from `limit` on is local. It starts as the size
    /// of the remote object. Truncation lowers it, and nothing raises it.
    package private(set) var limit: Int

    package static let defaultGranuleSize = 64 << 10
    /// The allowed granule sizes in bytes: from a page to the size of one request to the remote.
    package static let granuleSizes = (12...20).map { 1 << $0 }

    package init(granuleSize: Int = Self.defaultGranuleSize, limit: Int) {
        precondition(granuleSize > 0 && granuleSize & (granuleSize - 1) == 0 && limit >= 0)
        self.granuleSize = granuleSize
        self.limit = limit
    }

    /// The number of granules below the limit.
    package var count: Int { firstGranule(notBefore: limit) }

    /// The granules below the limit that overlap `range`.
    package func granules(touching range: Range<Int>) -> Range<Int> {
        let end = min(range.upperBound, limit)
        guard range.lowerBound < end else { return 0..<0 }
        return range.lowerBound / granuleSize..<(end - 1) / granuleSize + 1
    }

    /// The granules below the limit whose bytes below the limit all lie in `range`.
    package func granules(coveredBy range: Range<Int>) -> Range<Int> {
        let first = firstGranule(notBefore: range.lowerBound)
        let end = range.upperBound >= limit ? count : range.upperBound / granuleSize
        return first < end ? first..<end : 0..<0
    }

    /// The bytes of `granules`, cut off at the limit.
    package func bytes(of granules: Range<Int>) -> Range<Int> {
        start(of: granules.lowerBound)..<start(of: granules.upperBound)
    }

    /// The offset of a granule, cut off at the limit. Ranges up to `Int.max` mean "everything from here on".
    private func start(of granule: Int) -> Int {
        let (offset, overflow) = granule.multipliedReportingOverflow(by: granuleSize)
        return overflow ? limit : min(offset, limit)
    }

    /// Rounded up without adding first: offsets up to 2^63 - 1 occur.
    private func firstGranule(notBefore offset: Int) -> Int {
        offset / granuleSize + (offset % granuleSize == 0 ? 0 : 1)
    }

    /// Lowers the limit to `size` bytes. Does nothing when it is lower already.
    package mutating func lowerLimit(to size: Int) { limit = min(limit, size) }
}
