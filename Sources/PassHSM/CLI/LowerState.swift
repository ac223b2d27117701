import Glibc
import HSMControl
import HSMStore
import HSMSystem
import Logging

/// What is recorded about files in lower directories, without asking a daemon. Keeps the stores that it has opened.
struct LowerState {
    private var stores: [BytePath: Store] = [:]

    /// The state of the file at `path` by its record and its residency map.
    ///
    /// - Throws: `Errno`, `StoreError` or `RecordError`.
    mutating func report(_ path: BytePath) throws -> StateReport {
        let file = try path.withCString { name throws(Errno) in try Descriptor.openPath(name) }
        let isDirectory = try file.stat().st_mode & S_IFMT == S_IFDIR
        guard let root = try Self.top(of: path, isDirectory: isDirectory) else {
            throw CommandError("neither in a mount nor in a lower directory")
        }
        return StateReport(try store(at: root).describe(file), path: path)
    }

    private mutating func store(at root: BytePath) throws(StoreError) -> Store {
        if let store = stores[root] { return store }
        var quiet = Logger(label: "passhsm")
        quiet.logLevel = .critical
        let store = try Store.inspect(root.bytes.map { CChar(bitPattern: $0) } + [0], log: quiet)
        stores[root] = store
        return store
    }

    /// The directory at or above `path` that has a store in it; nil when there is none.
    static func top(of path: BytePath, isDirectory: Bool) throws(Errno) -> BytePath? {
        // The last name may be a symlink, which is the file that is asked about.
        var components: [[UInt8]]
        if isDirectory {
            components = try path.real().components
        } else {
            let folder = BytePath(path.bytes.prefix(through: path.bytes.lastIndex(of: UInt8(ascii: "/")) ?? -1))
            components = try (folder.bytes.isEmpty ? BytePath(".") : folder).real().components
        }
        while true {
            let candidate = BytePath(components: components)
            if let status = try? candidate.appending(Store.folder).linkStat(), status.st_mode & S_IFMT == S_IFDIR {
                return candidate
            }
            guard components.popLast() != nil else { return nil }
        }
    }
}
