import CFuse
import CLinux
import Glibc

/// What the kernel learns of an inode with its name. The kernel holds a reference to the inode until it sends FORGET.
package struct Entry {
    /// 0 tells the kernel that there is no such name, and that it may remember this for ``entryTimeout``.
    package var node: UInt64 = 0
    package var generation: UInt64 = 0
    package var attributes = stat()
    /// How many seconds the kernel may believe the attributes.
    package var attributeTimeout = 0.0
    /// How many seconds the kernel may believe the name.
    package var entryTimeout = 0.0

    package init() {}
}

/// How a file or directory was opened.
package struct Opened {
    package enum Access {
        /// The kernel reads and writes the lower file itself. It sends no FLUSH.
        case passthrough(backingID: Int32)
        /// The daemon gets the reads and writes. The kernel keeps the pages that it has.
        case cached
        case directory(keepsListing: Bool)
    }

    /// The daemon's number of the handle.
    package let handle: UInt64
    package let access: Access

    package init(handle: UInt64, access: Access) {
        self.handle = handle
        self.access = access
    }
}

// MARK: The kernel's layouts

/// A time span as the kernel wants it.
func kernelTime(_ seconds: Double) -> (seconds: UInt64, nanoseconds: UInt32) {
    let whole = seconds.rounded(.down)
    return (UInt64(whole), UInt32((seconds - whole) * 1e9))
}

extension fuse_attr {
    init(_ status: stat) {
        self.init()
        ino = UInt64(status.st_ino)
        mode = status.st_mode
        nlink = UInt32(truncatingIfNeeded: status.st_nlink)
        (uid, gid) = (status.st_uid, status.st_gid)
        rdev = UInt32(truncatingIfNeeded: status.st_rdev)
        size = UInt64(bitPattern: Int64(status.st_size))
        blocks = UInt64(bitPattern: Int64(status.st_blocks))
        blksize = UInt32(truncatingIfNeeded: status.st_blksize)
        (atime, atimensec) = (UInt64(bitPattern: Int64(status.st_atim.tv_sec)), UInt32(status.st_atim.tv_nsec))
        (mtime, mtimensec) = (UInt64(bitPattern: Int64(status.st_mtim.tv_sec)), UInt32(status.st_mtim.tv_nsec))
        (ctime, ctimensec) = (UInt64(bitPattern: Int64(status.st_ctim.tv_sec)), UInt32(status.st_ctim.tv_nsec))
    }
}

extension fuse_entry_out {
    init(_ entry: Entry) {
        self.init()
        nodeid = entry.node
        generation = entry.generation
        (entry_valid, entry_valid_nsec) = kernelTime(entry.entryTimeout)
        (attr_valid, attr_valid_nsec) = kernelTime(entry.attributeTimeout)
        attr = fuse_attr(entry.attributes)
    }
}

extension passhsm_open_out {
    init(_ opened: Opened) {
        self.init()
        fh = opened.handle
        switch opened.access {
        case .passthrough(let id):
            open_flags = PASSHSM_FOPEN_PASSTHROUGH | PASSHSM_FOPEN_NOFLUSH
            backing_id = id
        case .cached: open_flags = UInt32(FOPEN_KEEP_CACHE)
        case .directory(let keeps): open_flags = keeps ? UInt32(FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE) : 0
        }
    }
}

extension passhsm_statx_out {
    init(_ status: stat, birth: timespec?, timeout: Double) {
        func time(_ time: timespec) -> passhsm_sx_time {
            passhsm_sx_time(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec), reserved: 0)
        }
        self.init()
        (attr_valid, attr_valid_nsec) = kernelTime(timeout)
        mask = PASSHSM_STATX_BASIC_STATS
        blksize = UInt32(truncatingIfNeeded: status.st_blksize)
        nlink = UInt32(truncatingIfNeeded: status.st_nlink)
        (uid, gid) = (status.st_uid, status.st_gid)
        mode = UInt16(truncatingIfNeeded: status.st_mode)
        ino = UInt64(status.st_ino)
        size = UInt64(bitPattern: Int64(status.st_size))
        blocks = UInt64(bitPattern: Int64(status.st_blocks))
        (atime, ctime, mtime) = (time(status.st_atim), time(status.st_ctim), time(status.st_mtim))
        (rdev_major, rdev_minor) = (passhsm_major(UInt64(status.st_rdev)), passhsm_minor(UInt64(status.st_rdev)))
        if let birth {
            mask |= PASSHSM_STATX_BTIME
            btime = time(birth)
        }
    }
}

extension fuse_kstatfs {
    init(_ statistics: statvfs) {
        self.init()
        bsize = UInt32(truncatingIfNeeded: statistics.f_bsize)
        frsize = UInt32(truncatingIfNeeded: statistics.f_frsize)
        (blocks, bfree) = (UInt64(statistics.f_blocks), UInt64(statistics.f_bfree))
        bavail = UInt64(statistics.f_bavail)
        (files, ffree) = (UInt64(statistics.f_files), UInt64(statistics.f_ffree))
        namelen = UInt32(truncatingIfNeeded: statistics.f_namemax)
    }
}
