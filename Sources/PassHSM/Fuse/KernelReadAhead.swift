import Glibc
import HSMSystem

/// How far the kernel reads ahead in files that it reads through a mount: as much as one READ can ask for.
///
/// The reply to INIT agrees to FUSE's own limit. That limit can only lower the 128 KiB that each mount begins with, and
/// 128 KiB cost a sequential reader eight requests for each MiB.
enum KernelReadAhead {
    /// KiB. A READ cannot ask for more (FUSE_MAX_MAX_PAGES of the kernel, 256 pages).
    private static let most = 1024

    /// Widens the read-ahead of a mount. Only root may do so. For other users, and without /sys, the read-ahead stays
    /// as it was.
    ///
    /// - Parameter mountpoint: the canonical path of a mount that answers requests.
    static func widen(_ mountpoint: BytePath) {
        guard let entry = try? MountTable.entry(at: mountpoint) else { return }
        let path = "/sys/class/bdi/\(entry.device)/read_ahead_kb"
        guard let now = SmallFile.text(path).flatMap({ Int($0) }), now < most,
            let file = try? Descriptor.open(path, O_WRONLY)
        else { return }
        try? Array("\(most)\n".utf8).withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
    }
}
