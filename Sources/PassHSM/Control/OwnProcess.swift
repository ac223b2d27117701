import Glibc
import HSMSystem

/// Facts about this process, from /proc.
package enum OwnProcess {
    package static var id: Int32 { getpid() }

    package static var user: UInt32 { geteuid() }

    /// Whether this is the machine's root. The root of another user namespace owns neither /run nor /var.
    package static var isMachineRoot: Bool { user == 0 && Capabilities.isInFirstUserNamespace }

    /// The mask for modes of new files. It is read from /proc, because umask(2) would change it for all threads.
    package static var umask: mode_t {
        let line = SmallFile.text("/proc/self/status")?.split(separator: "\n").first { $0.hasPrefix("Umask:") }
        return line.flatMap { mode_t($0.dropFirst("Umask:".count).trimmed, radix: 8) } ?? 0o022
    }

    /// Resident memory in bytes (/proc/self/statm, second field).
    package static var residentBytes: Int {
        let fields = SmallFile.text("/proc/self/statm")?.split(separator: " ") ?? []
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }

    /// The count of descriptors that are open now.
    package static var openDescriptors: Int {
        // One of them is of the directory that this reads.
        max(0, DirectoryReader.texts(in: "/proc/self/fd").count - 1)
    }

    /// The path of this program's file, so that lists of processes show the daemon as `passhsm`.
    package static var program: BytePath {
        let link = BytePath("/proc/self/exe")
        // After an upgrade the old file has no name any more.
        guard let path = try? link.readLink(), let named = try? path.stat(), let own = try? link.stat(),
            named.st_ino == own.st_ino, named.st_dev == own.st_dev
        else { return link }
        return path
    }
}
