import Foundation
import Glibc
import HSMSystem

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
    init(_ kind: Kind, at path: String) throws {
        (self.path, image) = (path, path + ".image")
        let make =
            switch kind {
            case .ext4: "mkfs.ext4 -q -F -E lazy_itable_init=0"
            case .xfs: "mkfs.xfs -q -f"
            case .btrfs: "mkfs.btrfs -q -f"
            }
        try shell("truncate -s 400M \"$1\"; \(make) \"$1\" >/dev/null; mkdir -p \"$2\"", [image, path])
        try mount()
    }

    func mount() throws {
        try shell("mount -o loop \"$1\" \"$2\"", [image, path])
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
    }

    func remove() {
        if isMounted { umount2(path, Int32(MNT_DETACH)) }
        unlink(image)
    }
}
