import HSMCore

/// Turns the paths of a tree's files into the tree's events. The paths have to come in the order of their bytes, in
/// which everything below a directory is consecutive.
package struct PathEvents {
    /// The names of the entered directories, without the top.
    private var entered: [ArraySlice<UInt8>] = []

    package init() {}

    /// Leaves and enters directories up to the one that `path` is in.
    package mutating func go(to path: [UInt8], _ body: (RemoteEvent) throws -> Void) rethrows {
        let directories = path.split(separator: 0x2f).dropLast()
        let common = zip(entered, directories).prefix { $0 == $1 }.count
        try leave(to: common, body)
        for name in directories.dropFirst(common) {
            entered.append(name)
            try body(.enter(RemoteEntry(name: Array(name), kind: .directory, metadata: .init())))
        }
    }

    /// Enters the directory `path`. No earlier path may have led there.
    package mutating func enter(
        _ path: [UInt8], _ metadata: RemoteEntry.Metadata, _ body: (RemoteEvent) throws -> Void
    ) rethrows {
        try go(to: path, body)
        guard let name = path.split(separator: 0x2f).last else { return }
        entered.append(name)
        try body(.enter(RemoteEntry(name: Array(name), kind: .directory, metadata: metadata)))
    }

    /// Leaves every directory but the top.
    package mutating func finish(_ body: (RemoteEvent) throws -> Void) rethrows { try leave(to: 0, body) }

    private mutating func leave(to depth: Int, _ body: (RemoteEvent) throws -> Void) rethrows {
        while entered.count > depth {
            entered.removeLast()
            try body(.leave)
        }
    }
}

/// Finds paths that are equal to another path, or below it. The paths have to come in the order of their bytes.
package struct PathPrefixes {
    /// The paths that the next path may be below. Each begins with the one before it.
    private var candidates: [[UInt8]] = []

    package init() {}

    /// Adds a path, unless it is equal to an earlier path or below it.
    ///
    /// - Returns: the length of that earlier path; nil when there is none, and the path was added.
    package mutating func add(_ path: [UInt8]) -> Int? {
        while let last = candidates.last, !path.starts(with: last) { candidates.removeLast() }
        for other in candidates where path.count == other.count || path[other.count] == 0x2f { return other.count }
        candidates.append(path)
        return nil
    }
}
