import Glibc
import HSMControl
import HSMDaemon
import HSMStore
import HSMSystem
import Logging

/// Reads the records of files in lower directories, without asking a daemon. Keeps the stores that it has opened.
struct LowerState {
    private var stores: [BytePath: Store] = [:]

    /// The state of the file at `path` by its record and its residency map.
    ///
    /// - Throws: `Errno`, `StoreError` or `RecordError`.
    mutating func report(_ path: LowerPath) throws -> StateReport {
        let file = try path.file.withCString { name throws(Errno) in try Descriptor.openPath(name) }
        let store = try store(at: path.lower)
        var report = StateReport(try store.describe(file))
        report.add(warning: try store.configuration().warning)
        return report
    }

    private mutating func store(at root: BytePath) throws(StoreError) -> Store {
        if let store = stores[root] { return store }
        var quiet = Logger(label: "passhsm")
        quiet.logLevel = .critical
        let store = try Store.inspect(root.bytes.map { CChar(bitPattern: $0) } + [0], log: quiet)
        stores[root] = store
        return store
    }

    /// The folder of the store in `directory`; nil when there is none.
    private static func store(in directory: BytePath) throws(Errno) -> stat? {
        do throws(Errno) {
            let status = try directory.appending(Store.folder).linkStat()
            return status.st_mode & S_IFMT == S_IFDIR ? status : nil
        } catch {
            if error.rawValue == ENOENT || error.rawValue == ENOTDIR { return nil }
            throw error
        }
    }

    /// The lower directory, or the mount of one, that `path` is inside of; nil when there is none. The last name need
    /// not exist.
    static func outerDirectory(of path: BytePath) throws(Errno) -> BytePath? {
        let mountpoints = Set(try MountTable.entries().filter { $0.type == "fuse.passhsm" }.map(\.mountpoint))
        var components: [[UInt8]]
        do throws(Errno) { components = try path.real().components } catch {
            guard error.rawValue == ENOENT else { throw error }
            let names = path.components.dropLast()
            let parent =
                path.isAbsolute ? BytePath(components: names) : BytePath(Array(names.joined(separator: [0x2f])))
            do throws(Errno) {
                components = try (parent.bytes.isEmpty ? BytePath(".") : parent).real().components + [[]]
            } catch {
                // The directory cannot be made there.
                return nil
            }
        }
        while components.popLast() != nil {
            let candidate = BytePath(components: components)
            if mountpoints.contains(candidate) { return candidate }
            // A store counts only if it is this user's: another user could have put a store above the path.
            if try store(in: candidate)?.st_uid == geteuid() { return candidate }
        }
        return nil
    }
}
