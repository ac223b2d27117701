import CFuse

/// The features of the connection. The kernel offers some with INIT, and the reply takes those that the file system
/// wants.
package enum Negotiation {
    /// What depends on the mount.
    package struct Wishes: Sendable {
        /// The kernel may remember the targets of symbolic links.
        package var cachesSymlinks = false
        /// How many stacked file systems lie below a passthrough file, at least 1; 0 without passthrough.
        package var stackDepth: UInt32 = 0
        /// The mount may be cloned with mapped owners (MOUNT_ATTR_IDMAP, Linux 6.12). With them only the thread's
        /// number identifies the caller, except for requests that create something.
        package var mapsOwners = false

        package init() {}
    }

    /// The largest READ and WRITE in bytes (FUSE_MAX_MAX_PAGES of the kernel, 256 pages).
    static let maxTransfer = 1 << 20
    private static let pageSize = 4096

    static func reply(to offer: fuse_init_in, _ wishes: Wishes) -> fuse_init_out {
        var out = fuse_init_out()
        (out.major, out.minor) = (UInt32(FUSE_KERNEL_VERSION), min(offer.minor, UInt32(FUSE_KERNEL_MINOR_VERSION)))
        // The kernel takes no more than the mount's own limit, which KernelReadAhead widens.
        out.max_readahead = UInt32(maxTransfer)
        out.flags = offer.flags & wanted(wishes)
        out.flags2 = offer.flags & UInt32(FUSE_INIT_EXT) != 0 ? offer.flags2 & wantedHigh(wishes) : 0
        if out.flags2 != 0 { out.flags |= UInt32(FUSE_INIT_EXT) }
        // The word behind flags2 is max_stack_depth since Linux 6.9.
        if out.flags2 & PASSHSM_FUSE_PASSTHROUGH_HIGH != 0 { out.unused.0 = wishes.stackDepth }
        // Reads that wait for the remote count as background requests. They must not use up the places that other
        // requests need.
        (out.max_background, out.congestion_threshold) = (.max, .max)
        out.max_write = UInt32(maxTransfer)
        out.max_pages = UInt16(maxTransfer / pageSize)
        out.time_gran = 1
        return out
    }

    /// Three features are left out on purpose.
    ///
    /// FUSE_READDIRPLUS_AUTO: listings always carry attributes. Programs read a directory to its end before they ask
    /// for the first attribute. The kernel's guess therefore comes too late, and each name would cost a LOOKUP.
    ///
    /// FUSE_AUTO_INVAL_DATA: the file system keeps the kernel's pages right by itself.
    ///
    /// FUSE_ASYNC_DIO: the kernel waits for asynchronous direct I/O by a count of requests, and no signal ends that
    /// wait. Synchronous direct I/O answers AIO and io_uring as well: their callers wait, or workers that can be killed.
    private static func wanted(_ wishes: Wishes) -> UInt32 {
        let always =
            FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT | FUSE_BIG_WRITES | FUSE_DONT_MASK
            | FUSE_FLOCK_LOCKS | FUSE_DO_READDIRPLUS | FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2
            | FUSE_SETXATTR_EXT
        return UInt32(always) | (wishes.cachesSymlinks ? UInt32(FUSE_CACHE_SYMLINKS) : 0)
    }

    private static func wantedHigh(_ wishes: Wishes) -> UInt32 {
        (wishes.stackDepth > 0 ? PASSHSM_FUSE_PASSTHROUGH_HIGH : 0)
            | (wishes.mapsOwners ? PASSHSM_FUSE_ALLOW_IDMAP_HIGH : 0)
    }
}
