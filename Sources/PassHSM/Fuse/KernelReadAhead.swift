import Glibc
import HSMSystem

/// How far the kernel reads ahead in files that it reads through a mount: as much as one READ can ask for.
///
/// FUSE's own limit, what the reply to INIT agrees to, can only lower what each mount begins with, 128 KiB: eight requests
/// for each MiB that a sequential reader gets.
enum KernelReadAhead {
    /// KiB; READ has no more (FUSE_MAX_MAX_PAGES of the kernel, 256 pages).
    private static let most = 1024

    /// Root alone may; for others, and without /sys, all is as it was.
    ///
    /// - Parameter mountpoint: canonical, of a mount that answers.
    static func widen(_ mountpoint: BytePath) {
        guard let entry = try? MountTable.entry(at: mountpoint) else { return }
        let path = "/sys/class/bdi/\(entry.device)/read_ahead_kb"
        guard let now = SmallFile.text(path).flatMap({ Int($0) }), now < most,
            let file = try? Descriptor.open(path, O_WRONLY)
        else { return }
        try? Array("\(most)\n".utf8).withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
    }
}
