import HSMSystem

/// A process that keeps a mount busy.
package struct MountUser: Sendable, Equatable {
    package var pid: Int32
    /// The program's name for people (/proc/PID/comm).
    package var name: String
    /// The path that it holds: an open file, its working directory, its root or its program.
    package var path: BytePath
    /// One of its threads waits in the kernel for content, or for a file system's answer: the process may leave the
    /// mount when that fails.
    package var isWaiting = false

    /// Processes that hold something in the mount at `mountpoint`, at most `limit`; only root sees those of other
    /// users. Descriptors of other mounts with the same path do not count: a daemon that is mounted over its lower
    /// directory, and its guardian, have such descriptors open.
    ///
    /// It reads only links of /proc, which the kernel answers by itself: it touches no file in the mount. It does not
    /// find a mapping without an open descriptor.
    package static func of(
        _ mountpoint: BytePath, except daemon: Int32?, limit: Int = 5, proc: String = "/proc"
    ) -> [MountUser] {
        var result: [MountUser] = []
        let mount = try? MountTable.entry(at: mountpoint)?.id
        for name in DirectoryReader.texts(in: proc) {
            guard let pid = Int32(name), pid != daemon, pid != OwnProcess.id else { continue }
            let folder = "\(proc)/\(name)"
            let descriptors = DirectoryReader.texts(in: "\(folder)/fd").map { "fd/\($0)" }
            for link in ["cwd", "root", "exe"] + descriptors {
                guard let target = try? BytePath("\(folder)/\(link)").readLink(), mountpoint.contains(target),
                    isOn(mount, link, folder)
                else { continue }
                result.append(
                    MountUser(
                        pid: pid, name: SmallFile.text("\(folder)/comm") ?? "?", path: target,
                        isWaiting: isWaiting(folder)))
                break
            }
            if result.count == limit { break }
        }
        return result
    }

    /// Whether a descriptor is on the mount; true where nothing tells.
    private static func isOn(_ mount: Int?, _ link: String, _ folder: String) -> Bool {
        guard let mount, link.hasPrefix("fd/"), let text = SmallFile.text("\(folder)/fdinfo/\(link.dropFirst(3))"),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("mnt_id:") })
        else { return true }
        return Int(line.dropFirst("mnt_id:".count).trimmed) == mount
    }

    /// Judges by the kernel function in which a thread sleeps (/proc/PID/task/TID/wchan): those of FUSE's requests, of
    /// reads of pages, and of fanotify's events.
    private static func isWaiting(_ folder: String) -> Bool {
        DirectoryReader.texts(in: "\(folder)/task").filter { Int32($0) != nil }.contains { thread in
            guard let place = SmallFile.text("\(folder)/task/\(thread)/wchan") else { return false }
            return ["request_wait_answer", "fuse", "folio", "page", "fanotify"].contains { place.contains($0) }
        }
    }
}
