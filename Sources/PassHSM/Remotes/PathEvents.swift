import HSMCore

/// Makes a tree's events of its files' paths, given in the order of their bytes: in it, all that is below a directory
/// follows one another.
package struct PathEvents {
    /// Names of the directories that are entered, without the top.
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

    /// Goes to the directory `path`, which no path below has led to yet.
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

/// Finds paths that are the same, or below another's, among paths that come in the order of their bytes.
package struct PathPrefixes {
    /// Those that what comes next may be below: each begins with the one before it.
    private var candidates: [[UInt8]] = []

    package init() {}

    /// - Returns: the length of the path that `path` is, or is below; nil, and it is taken, when there is none.
    package mutating func add(_ path: [UInt8]) -> Int? {
        while let last = candidates.last, !path.starts(with: last) { candidates.removeLast() }
        for other in candidates where path.count == other.count || path[other.count] == 0x2f { return other.count }
        candidates.append(path)
        return nil
    }
}
