import Glibc
import HSMSystem

/// Whether the front end of pre-content events can be used here. Finds out by trying.
package struct PreContentSupport: Sendable {
    /// Why it cannot be used; nil when it can.
    package let obstacle: String?
    /// The lower directory is the top of its file system. So the whole file system can be marked, whichever mount it is
    /// reached by.
    package let isWholeFileSystem: Bool

    /// - Parameter lower: canonical, or nil to ask the kernel alone.
    package init(lower: BytePath?, mayAdministrate: Bool) {
        isWholeFileSystem = lower.map(Self.isTop) ?? false
        let group: Descriptor
        do throws(Errno) {
            group = try .preContentGroup()
        } catch {
            let reason = mayAdministrate ? "needs Linux 6.14 or later" : "needs CAP_SYS_ADMIN"
            obstacle = "\(reason) (\(error.text))"
            return
        }
        guard let lower else {
            obstacle = nil
            return
        }
        do throws(Errno) {
            let directory = try lower.withCString { name throws(Errno) in
                try Descriptor.open(name, O_RDONLY | O_DIRECTORY)
            }
            try group.tryMarkingPreAccess(directory)
            obstacle = nil
        } catch {
            let mounts = (try? MountTable.entries())?.filter { $0.mountpoint.contains(lower) } ?? []
            // The table's order says nothing: the mount that is shown is the deepest one.
            let type = mounts.max { $0.mountpoint.bytes.count < $1.mountpoint.bytes.count }?.type
            let reason =
                switch error.rawValue {
                case EOPNOTSUPP: "the file system has no pre-content events" + (type.map { " (\($0))" } ?? "")
                case EINVAL: "needs Linux 6.14 or later"
                default: "the mark is refused"
                }
            obstacle = "\(reason) (\(error.text))"
        }
    }

    /// Never true for the root of the machine: if no process answered the events, no file of it could be opened.
    private static func isTop(_ lower: BytePath) -> Bool {
        guard lower != BytePath("/"), let entry = try? MountTable.entry(at: lower) else { return false }
        return entry.root == BytePath("/")
    }

    /// Why `mount --frontend auto` does not take this front end; nil when it does.
    package var reservation: String? {
        if let obstacle { return obstacle }
        if isWholeFileSystem { return nil }
        return
            "the lower directory is not the top of its file system, so programs in other mount namespaces would read "
            + "zeros in place of missing content"
    }
}
