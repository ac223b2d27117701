import Glibc
import HSMSystem

/// What this process can say about itself, from /proc.
package enum OwnProcess {
    package static var id: Int32 { getpid() }

    package static var user: UInt32 { geteuid() }

    /// Whether this is the machine's root: a user namespace's own owns neither /run nor /var.
    package static var isMachineRoot: Bool { user == 0 && Capabilities.isInFirstUserNamespace }

    /// The mask of modes of new files. Unlike umask(2), which changes it for all threads, /proc only tells it.
    package static var umask: mode_t {
        let line = SmallFile.text("/proc/self/status")?.split(separator: "\n").first { $0.hasPrefix("Umask:") }
        return line.flatMap { mode_t($0.dropFirst("Umask:".count).trimmed, radix: 8) } ?? 0o022
    }

    /// Resident memory in bytes (/proc/self/statm, second field).
    package static var residentBytes: Int {
        let fields = SmallFile.text("/proc/self/statm")?.split(separator: " ") ?? []
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }

    /// Open descriptors now.
    package static var openDescriptors: Int {
        // One of them is the directory that is read.
        max(0, DirectoryReader.texts(in: "/proc/self/fd").count - 1)
    }

    /// This program's file by its name, so that the daemon is called `passhsm` in lists of processes.
    package static var program: BytePath {
        let link = BytePath("/proc/self/exe")
        // Replaced by an upgrade, the old file has no name any more.
        guard let path = try? link.readLink(), let named = try? path.stat(), let own = try? link.stat(),
            named.st_ino == own.st_ino, named.st_dev == own.st_dev
        else { return link }
        return path
    }
}
