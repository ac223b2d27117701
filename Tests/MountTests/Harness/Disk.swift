import Foundation
import Glibc
import HSMSystem
import TestSupport

/// A file system on an image of its own, whose power can fail.
final class Disk {
    enum Kind: String, CaseIterable {
        case ext4, xfs, btrfs

        /// Those whose power can be cut.
        static let withShutdown: [Kind] = [.ext4, .xfs]
    }

    let path: String
    private let image: String
    private var isMounted = false

    /// Mounts a new one at `path`, which is made.
    ///
    /// - Parameter isVast: ext4 and xfs with room for billions of files, of which nearly nothing is written. Directories at the
    ///   top are spread over all of it.
    init(_ kind: Kind, at path: String, isVast: Bool = false) throws {
        (self.path, image) = (path, path + ".image")
        let make =
            switch kind {
            case .ext4 where isVast: "mkfs.ext4 -q -F -N 3500000000 -J size=8 -E lazy_itable_init=1,nodiscard"
            case .xfs where isVast: "mkfs.xfs -q -f -K -l size=64m"
            case .ext4: "mkfs.ext4 -q -F -E lazy_itable_init=0"
            case .xfs: "mkfs.xfs -q -f"
            case .btrfs: "mkfs.btrfs -q -f"
            }
        let size = isVast ? "15T" : "400M"
        try shell("truncate -s \(size) \"$1\"; \(make) \"$1\" >/dev/null; mkdir -p \"$2\"", [image, path])
        try mount(isVast && kind == .ext4 ? "loop,noinit_itable" : "loop")
    }

    func mount(_ options: String = "loop") throws {
        try shell("mount -o \(options) \"$1\" \"$2\"", [image, path])
        isMounted = true
    }

    /// FS_IOC_SHUTDOWN without flushing the log: nothing reaches the disk from now on. The file system is still mounted.
    func cutPower() throws {
        let top = try File.open(path, O_RDONLY | O_DIRECTORY)
        var flags: UInt32 = 2
        let command: UInt32 = 0x8004_587d
        var failure: Errno?
        withUnsafeMutableBytes(of: &flags) { bytes in
            do throws(Errno) { try top.ioctl(command, bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    func unmount() throws {
        // The killed daemon's own mount of it goes with its last thread.
        try until("the disk to be free") { umount2(path, 0) == 0 }
        isMounted = false
        // That mount, and files whose last use is just over, keep the file system alive for a moment. Mounted anew, it would
        // be the same one: without power.
        try until("the end of the file system") {
            try shell("losetup --noheadings --associated \"$1\"", [image]).isEmpty
        }
    }

    func remove() {
        if isMounted { umount2(path, Int32(MNT_DETACH)) }
        unlink(image)
    }
}
