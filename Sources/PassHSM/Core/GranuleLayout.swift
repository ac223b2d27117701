/// How a file is cut into granules, the unit in which presence is known.
package struct GranuleLayout: Hashable, Sendable {
    /// Bytes of a granule; a power of two.
    package let granuleSize: Int
    /// Bytes `[0, limit)` may have to come from the remote; everything from `limit` on is local. At first the size of the
    /// remote object; truncation lowers it, and nothing raises it.
    package private(set) var limit: Int

    package static let defaultGranuleSize = 64 << 10

    package init(granuleSize: Int = Self.defaultGranuleSize, limit: Int) {
        precondition(granuleSize > 0 && granuleSize & (granuleSize - 1) == 0 && limit >= 0)
        self.granuleSize = granuleSize
        self.limit = limit
    }

    /// How many granules there are below the limit.
    package var count: Int { limit / granuleSize + (limit % granuleSize == 0 ? 0 : 1) }

    /// The granules below the limit that `range` touches.
    package func granules(touching range: Range<Int>) -> Range<Int> {
        let end = min(range.upperBound, limit)
        guard range.lowerBound < end else { return 0..<0 }
        return range.lowerBound / granuleSize..<(end - 1) / granuleSize + 1
    }

    /// The granules below the limit of which `range` covers every byte below the limit.
    package func granules(coveredBy range: Range<Int>) -> Range<Int> {
        let first = (range.lowerBound + granuleSize - 1) / granuleSize
        let end = range.upperBound >= limit ? count : range.upperBound / granuleSize
        return first < end ? first..<end : 0..<0
    }

    /// The bytes of `granules`, cut off at the limit.
    package func bytes(of granules: Range<Int>) -> Range<Int> {
        let start = min(granules.lowerBound * granuleSize, limit)
        let (end, overflow) = granules.upperBound.multipliedReportingOverflow(by: granuleSize)
        return start..<(overflow ? limit : min(max(end, start), limit))
    }

    package mutating func lowerLimit(to size: Int) { limit = min(limit, size) }
}
