import Glibc
import HSMSystem

/// What this process can say about itself, from /proc.
package enum OwnProcess {
    package static var id: Int32 { getpid() }

    package static var user: UInt32 { geteuid() }

    /// Resident memory in bytes (/proc/self/statm, second field).
    package static var residentBytes: Int {
        let fields = SmallFile.text("/proc/self/statm")?.split(separator: " ") ?? []
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }

    /// Open descriptors now.
    package static var openDescriptors: Int {
        guard let folder = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        // `.`, `..`, and the one that this loop reads through.
        return max(0, count - 3)
    }
}
