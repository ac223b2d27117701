import Glibc
import HSMSystem

/// A request of the kernel, decoded. Its names and data lie in the transport's buffer: they are valid only until the
/// handler returns.
package struct Request {
    /// The inode that the request is about. For requests that name something it is the directory.
    package let node: UInt64
    package let operation: Operation

    package init(node: UInt64, operation: Operation) {
        self.node = node
        self.operation = operation
    }
}

/// The thread that made a request. It waits until the reply.
package struct Caller: Sendable {
    /// The user and the group for files that the request creates. Where the mount can have mapped owners, requests that
    /// create nothing have -1 here.
    package let user: uid_t
    package let group: gid_t
    package let thread: pid_t

    package init(user: uid_t, group: gid_t, thread: pid_t) {
        self.user = user
        self.group = group
        self.thread = thread
    }

    package var credentials: ThreadCredentials { ThreadCredentials(of: thread) }
}

/// Text that ends with a zero byte.
package typealias Name = UnsafePointer<CChar>

/// What a request asks for. The cases are called as in the kernel's protocol (linux/fuse.h). Sizes, offsets and lengths
/// are bytes; only
/// the offset of `lseek` may be negative.
package enum Operation {
    case lookup(Name)
    case getattr
    /// GETATTR that also asks for the time of birth.
    case statx
    case setattr(AttributeChange)
    case readlink
    case symlink(Name, target: Name)
    case mknod(Name, mode: mode_t, device: dev_t, umask: mode_t)
    case mkdir(Name, mode: mode_t, umask: mode_t)
    case unlink(Name)
    case rmdir(Name)
    /// - Parameter flags: those of renameat2(2).
    case rename(Name, to: Name, in: UInt64, flags: UInt32)
    case link(Name, to: UInt64)
    case open(flags: Int32, dropsSetIDs: Bool)
    case create(Name, NewFile)
    /// A new file without a name in the directory.
    case tmpfile(NewFile)
    /// - Parameter isDirect: the bytes go straight to a program. Otherwise they go to the kernel's page cache.
    case read(UInt64, offset: Int, size: Int, isDirect: Bool)
    case write(UInt64, offset: Int, UnsafeRawBufferPointer, dropsSetIDs: Bool)
    case flush(UInt64)
    case release(UInt64)
    case fsync(UInt64, dataOnly: Bool)
    case fallocate(UInt64, mode: Int32, offset: Int, length: Int)
    case lseek(UInt64, offset: Int, whence: Int32)
    case copyFileRange(CopyRange)
    /// - Parameter operation: that of flock(2).
    case flock(UInt64, operation: Int32)
    case ioctl(command: UInt32, input: UnsafeRawBufferPointer, outputSize: Int)
    case opendir
    /// - Parameter plus: READDIRPLUS, whose entries are lookups too.
    case readdir(UInt64, offset: Int, size: Int, plus: Bool)
    case releasedir(UInt64)
    case fsyncdir(UInt64, dataOnly: Bool)
    case statfs
    /// - Parameter dropsSetGID: an owner outside the file's group sets an ACL.
    case setxattr(Name, UnsafeRawBufferPointer, flags: Int32, dropsSetGID: Bool)
    /// - Parameter size: the caller's room for the value; 0 asks for the value's size.
    case getxattr(Name, size: Int)
    case listxattr(size: Int)
    case removexattr(Name)
    case access
}

/// How CREATE or TMPFILE makes and opens a file.
package struct NewFile: Sendable {
    package var mode: mode_t
    package var umask: mode_t
    /// The flags of open(2).
    package var flags: Int32
    /// A truncation takes setuid and setgid away, because the caller has no CAP_FSETID.
    package var dropsSetIDs: Bool

    package init(mode: mode_t, umask: mode_t, flags: Int32, dropsSetIDs: Bool) {
        self.mode = mode
        self.umask = umask
        self.flags = flags
        self.dropsSetIDs = dropsSetIDs
    }
}

/// What SETATTR changes; nil stays as it is.
package struct AttributeChange: Sendable {
    package var mode: mode_t?
    package var owner: uid_t?
    package var group: gid_t?
    package var size: Int?
    package var accessTime: timespec?
    package var modificationTime: timespec?
    /// The change time moves. The lower file system does so by itself.
    package var movesChangeTime = false
    /// Setuid and setgid are to be taken away.
    package var dropsSetIDs = false

    package init() {}

    /// So it is for chown(2) with -1 twice, and for a change of content that takes setuid and setgid away.
    package var setsNothing: Bool {
        mode == nil && owner == nil && group == nil && size == nil && accessTime == nil && modificationTime == nil
            && !movesChangeTime
    }
}

/// The ranges of COPY_FILE_RANGE.
package struct CopyRange: Sendable {
    package var source: UInt64
    package var sourceOffset: Int
    package var target: UInt64
    package var targetOffset: Int
    package var count: Int
    package var flags: UInt32

    package init(
        source: UInt64, sourceOffset: Int, target: UInt64, targetOffset: Int, count: Int, flags: UInt32
    ) {
        self.source = source
        self.sourceOffset = sourceOffset
        self.target = target
        self.targetOffset = targetOffset
        self.count = count
        self.flags = flags
    }
}
