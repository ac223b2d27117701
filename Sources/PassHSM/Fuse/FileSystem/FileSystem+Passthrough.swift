import CLinux
import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem

/// The connection's features: whether the kernel reads and writes complete files by itself.
extension FileSystem {
    struct Passthrough: Sendable {
        var isOn: Bool
        var reason: String
    }

    /// The features that this file system wants of the kernel.
    var wishes: Negotiation.Wishes {
        var wishes = Negotiation.Wishes()
        wishes.cachesSymlinks = options.cache == .exclusive
        // Mounts of ordinary users cannot be mapped.
        wishes.mapsOwners = geteuid() == 0 && Capabilities.isInFirstUserNamespace
        // A stacked lower file system needs one more level (fs/fuse/backing.c, ELOOP).
        let overlayMagic: UInt64 = 0x794c_7630  // OVERLAYFS_SUPER_MAGIC
        let isStacked = passhsm_file_system_type(tree.directory.original.raw) == overlayMagic
        if options.allowsPassthrough { wishes.stackDepth = isStacked ? 2 : 1 }
        return wishes
    }

    func connected(_ transport: any Transport) {
        let result = tryPassthrough(transport)
        passthrough.withLock { $0 = result }
    }

    /// Registers a file of the lower file system to find out whether the kernel and the lower file system support
    /// passthrough.
    private func tryPassthrough(_ transport: any Transport) -> Passthrough {
        guard options.allowsPassthrough else { return Passthrough(isOn: false, reason: "switched off") }
        do throws(Errno) {
            let file = try Descriptor.open(at: store.temporary.raw, ".", O_RDWR | PASSHSM_O_TMPFILE, mode: 0o600)
            transport.closeBacking(try transport.openBacking(file.raw))
        } catch {
            let reason =
                switch error.rawValue {
                case EPERM: "needs CAP_SYS_ADMIN and Linux 6.9"
                case ENOTTY, EINVAL: "the kernel is older than 6.9"
                case ELOOP: "the lower file system is stacked too deep"
                case EOPNOTSUPP: "the lower file system cannot"
                default: error.text
                }
            return Passthrough(isOn: false, reason: reason)
        }
        let ids = BackingIDs(transport, limit: 4096)
        known.backing.withLock { $0 = ids }
        return Passthrough(isOn: true, reason: "the kernel reads and writes complete files by itself")
    }
}
