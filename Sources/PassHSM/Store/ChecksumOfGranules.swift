import HSMCore

/// Computes the CRC32C of a file's content from those of its granules.
struct ChecksumOfGranules {
    private let layout: GranuleLayout
    private let others: [Int: UInt32]
    private var chain: CRC32C.Chain
    private var next = 0
    private var isKnown = true

    /// - Parameter others: checksums of granules that the residency map does not have yet.
    init(_ layout: GranuleLayout, notRecorded others: [Int: UInt32]) {
        self.layout = layout
        self.others = others
        chain = CRC32C.Chain(usualLength: layout.granuleSize)
    }

    /// Adds the next page of the residency map; nil: the page is damaged.
    mutating func append(_ page: ResidencyMap.Page?, from first: Int) {
        appendOthers(until: first)
        guard isKnown, let page else {
            isKnown = false
            return
        }
        for granule in first..<max(first, min(first + ResidencyMap.granulesPerPage, layout.count)) {
            append(page.presence(of: granule) == .filled ? page.checksum(of: granule) : others[granule])
        }
    }

    /// The checksum of the whole content; nil when a granule's is not known.
    mutating func finish() -> UInt32? {
        appendOthers(until: layout.count)
        return isKnown ? chain.value : nil
    }

    private mutating func appendOthers(until end: Int) {
        while isKnown && next < end { append(others[next]) }
    }

    private mutating func append(_ checksum: UInt32?) {
        guard isKnown, let checksum else {
            isKnown = false
            return
        }
        chain.append(checksum, length: layout.bytes(of: next..<next + 1).count)
        next += 1
    }
}
