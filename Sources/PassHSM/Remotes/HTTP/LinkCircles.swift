import HSMCore

/// Finds cycles of symlinks on a server. Below such a link, a server lists everything above it again and again.
///
/// A directory whose page lists the same names as one above it is suspicious, but no more: trees that are made by
/// hashes, for instance, repeat names. The path between the two tells. If it can be followed eight more times, and the
/// same names are listed at its end, it is a cycle. Linux follows 40 symlinks in a path, so the cycle may consist of up
/// to four links.
struct LinkCircles {
    /// A directory that the listing is in.
    struct Directory: Sendable {
        let path: [UInt8]
        /// Equal for equal lists.
        let names: Int
    }

    /// The directories from the top down to the current one.
    private(set) var above: [Directory] = []

    private static let repetitions = 8
    /// A path that is too long for eight repetitions is repeated at least so often, or not tested at all.
    private static let fewestRepetitions = 3

    mutating func enter(_ path: [UInt8], _ page: HTTPIndexPage) {
        above.append(Directory(path: path, names: page.names.hashValue))
    }

    mutating func leave() { above.removeLast() }

    /// The path to test for a cycle, and the directory that `path` would be a repetition of. Nil when nothing is
    /// suspicious.
    ///
    /// - Parameter page: the page of `path`. A page with a single directory is never suspicious: such a cycle is
    ///   bounded by the longest path.
    func suspicion(_ path: [UInt8], _ page: HTTPIndexPage, maxPath: Int) -> (probe: [UInt8], top: [UInt8])? {
        if page.names.isEmpty || page.names.count == 1 && page.names[0].isDirectory { return nil }
        let names = page.names.hashValue
        guard let top = above.last(where: { $0.names == names }) else { return nil }
        let way = Array(path.dropFirst(top.path.count).drop { $0 == 0x2f })
        guard !way.isEmpty else { return nil }
        let times = min(Self.repetitions, (maxPath - path.count) / (way.count + 1))
        guard times >= Self.fewestRepetitions else { return nil }
        return (path + Array(repeating: [0x2f] + way, count: times).joined(), top.path)
    }
}
