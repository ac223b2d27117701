import HSMCore
import HSMRemotes

/// Finds symlinks on a server that lead round in circles: below one, everything that is above it is listed again and again.
///
/// A directory whose page lists the same names as one above it is suspicious, and no more: trees are made of such, by
/// hashes for instance. What lies between the two tells: when it can be gone along eight times more, and the same
/// names are listed there, it is a circle. Linux follows 40 symlinks in a path, so that the way may have four of them.
struct LinkCircles {
    /// A directory that is being gone through.
    struct Directory: Sendable {
        let path: [UInt8]
        /// Equal for equal lists.
        let names: Int
    }

    /// From the top down.
    private(set) var above: [Directory] = []

    private static let repetitions = 8
    /// A way of 512 bytes and more is not tried so often.
    private static let fewestRepetitions = 3

    mutating func enter(_ path: [UInt8], _ page: HTTPIndexPage) {
        above.append(Directory(path: path, names: page.names.hashValue))
    }

    mutating func leave() { above.removeLast() }

    /// Where the page of `path` would be listed again if it was a circle, and the directory that it would be; nil when
    /// nothing is suspicious.
    ///
    /// - Parameter page: one that lists a single directory is never suspicious: it cannot be more than the path's length.
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
