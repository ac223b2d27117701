import HSMSystem

/// A process that keeps a mount busy.
package struct MountUser: Sendable, Equatable {
    package var pid: Int32
    /// The program's name for people (/proc/PID/comm).
    package var name: String
    /// What it holds: an open file, its working directory, its root or its program.
    package var path: BytePath

    /// Processes that hold something in the mount at `mountpoint`, at most `limit`; those of others are seen by root
    /// only.
    ///
    /// Reads the links of /proc, which the kernel answers by itself: no file in the mount is touched. A mapping without an
    /// open descriptor is not found.
    package static func of(
        _ mountpoint: BytePath, except daemon: Int32?, limit: Int = 5, proc: String = "/proc"
    ) -> [MountUser] {
        var result: [MountUser] = []
        for name in DirectoryReader.texts(in: proc) {
            guard let pid = Int32(name), pid != daemon, pid != OwnProcess.id else { continue }
            let folder = "\(proc)/\(name)"
            let descriptors = DirectoryReader.texts(in: "\(folder)/fd").map { "fd/\($0)" }
            for link in ["cwd", "root", "exe"] + descriptors {
                guard let target = try? BytePath("\(folder)/\(link)").readLink(), mountpoint.contains(target) else {
                    continue
                }
                result.append(MountUser(pid: pid, name: SmallFile.text("\(folder)/comm") ?? "?", path: target))
                break
            }
            if result.count == limit { break }
        }
        return result
    }
}
