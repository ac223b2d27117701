import Glibc
import HSMControl
import HSMCore
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
        let status = try file.stat()
        let kind = StateReport.kind(ofMode: status.st_mode)
        let size = kind == "directory" ? 0 : status.st_size
        let local = StateReport(
            path: path, kind: kind, state: Record.State.local.name, size: size, presentBytes: size,
            ranges: size > 0 ? [0..<size] : [])
        guard let root = try Self.top(of: path, isDirectory: kind == "directory"), kind == "file" else { return local }
        guard let record = try store(at: root).record(of: file), record.state != .local else { return local }
        return try Self.report(path, record, size: size, present: record.presence(in: store(at: root)))
    }

    private mutating func store(at root: BytePath) throws(StoreError) -> Store {
        if let store = stores[root] { return store }
        var quiet = Logger(label: "passhsm")
        quiet.logLevel = .critical
        let store = try Store.inspect(root.bytes.map { CChar(bitPattern: $0) } + [0], log: quiet)
        stores[root] = store
        return store
    }

    private static func report(
        _ path: BytePath, _ record: Record, size: Int, present: Result<GranuleSet, RecordError>
    ) -> StateReport {
        let granules = (try? present.get()) ?? GranuleSet()
        var ranges = granules.runs(most: StateReport.maximumRanges + 1).map { run in
            let bytes = record.layout.bytes(of: run)
            return bytes.lowerBound..<min(bytes.upperBound, size)
        }.filter { !$0.isEmpty }
        // Everything from the limit on was written here.
        if record.limit < size {
            if let last = ranges.last, last.upperBound == record.limit {
                ranges[ranges.count - 1] = last.lowerBound..<size
            } else {
                ranges.append(record.limit..<size)
            }
        }
        var flags = record.flags.names
        var lastError: String? = record.lastError.isEmpty ? nil : record.lastError
        if case .failure(let error) = present {
            lastError = error.cause
            if !flags.contains("error") { flags.append("error") }
        }
        return StateReport(
            path: path, kind: "file", state: record.state.name, flags: flags, size: size,
            presentBytes: presentBytes(granules, record, size: size), ranges: ranges,
            remoteKey: record.object.key.bytes,
            remoteVersion: record.object.version.bytes, granuleSize: record.granuleSize, lastError: lastError)
    }

    /// Not the sum of the ranges: those are cut off.
    private static func presentBytes(_ granules: GranuleSet, _ record: Record, size: Int) -> Int {
        var bytes = max(0, size - record.limit) + granules.count * record.granuleSize
        let count = record.layout.count
        if count > 0, granules.contains(count - 1) {
            bytes -= count * record.granuleSize - record.limit
        }
        return min(bytes, size)
    }

    /// The directory at or above `path` that has a store in it; nil when there is none.
    private static func top(of path: BytePath, isDirectory: Bool) throws(Errno) -> BytePath? {
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

extension Record {
    /// What of the file is present, or why that is unknown.
    fileprivate func presence(in store: Store) -> Result<GranuleSet, RecordError> {
        do throws(RecordError) { return .success(try store.presence(of: self)) } catch { return .failure(error) }
    }
}
