import CFuse
import CLinux
import Glibc
import HSMSystem

/// The kernel's layouts (linux/fuse.h) as values.
extension Operation {
    /// - Parameters:
    ///   - body: the request without its header.
    ///   - hasExtendedSetxattr: whether SETXATTR has its longer form.
    /// - Throws: ENOSYS for a request that the file system does not serve, EIO for one that is cut off, EINVAL for
    ///   numbers that no file can have.
    init(_ opcode: UInt32, _ body: UnsafeRawBufferPointer, hasExtendedSetxattr: Bool) throws(Errno) {
        var reader = RequestReader(body)
        switch fuse_opcode(opcode) {
        case FUSE_LOOKUP: self = .lookup(try reader.name())
        case FUSE_GETATTR: self = .getattr
        case FUSE_OPEN:
            let open = try reader.next(fuse_open_in.self)
            self = .open(
                flags: Int32(bitPattern: open.flags), dropsSetIDs: open.open_flags & PASSHSM_OPEN_KILL_SUIDGID != 0)
        case FUSE_READ: self = try .reading(&reader)
        case FUSE_WRITE: self = try .writing(&reader)
        case FUSE_FLUSH: self = .flush(try reader.next(fuse_flush_in.self).fh)
        case FUSE_RELEASE: self = .release(try reader.next(fuse_release_in.self).fh)
        case FUSE_OPENDIR: self = .opendir
        case FUSE_READDIR: self = try .listing(&reader, plus: false)
        case FUSE_READDIRPLUS: self = try .listing(&reader, plus: true)
        case FUSE_RELEASEDIR: self = .releasedir(try reader.next(fuse_release_in.self).fh)
        case FUSE_FSYNCDIR:
            let sync = try reader.next(fuse_fsync_in.self)
            self = .fsyncdir(sync.fh, dataOnly: sync.isDataOnly)
        case FUSE_CREATE:
            let file = try NewFile(&reader)
            self = .create(try reader.name(), file)
        case fuse_opcode(UInt32(PASSHSM_FUSE_TMPFILE)): self = .tmpfile(try NewFile(&reader))
        case FUSE_SETATTR: self = .setattr(try AttributeChange(&reader))
        case FUSE_SETXATTR: self = try .settingAttribute(&reader, isExtended: hasExtendedSetxattr)
        case FUSE_GETXATTR:
            let size = Int(try reader.next(fuse_getxattr_in.self).size)
            self = .getxattr(try reader.name(), size: size)
        case FUSE_LISTXATTR: self = .listxattr(size: Int(try reader.next(fuse_getxattr_in.self).size))
        case FUSE_REMOVEXATTR: self = .removexattr(try reader.name())
        case fuse_opcode(UInt32(PASSHSM_FUSE_STATX)): self = .statx
        case FUSE_STATFS: self = .statfs
        // With default_permissions the kernel sends ACCESS only where it does not check access(2) by itself.
        case FUSE_ACCESS: self = .access
        default:
            if let operation = try Self.rarer(opcode, &reader) {
                self = operation
            } else {
                self = try .changingNames(opcode, &reader)
            }
        }
    }

    private static func reading(_ reader: inout RequestReader) throws(Errno) -> Operation {
        let read = try reader.next(fuse_read_in.self)
        // Reads past the page cache name the owner of their locks.
        let isDirect = read.lock_owner != 0 || Int32(bitPattern: read.flags) & PASSHSM_O_DIRECT != 0
        return .read(
            read.fh, offset: try RequestReader.size(read.offset), size: Int(read.size), isDirect: isDirect)
    }

    private static func writing(_ reader: inout RequestReader) throws(Errno) -> Operation {
        let write = try reader.next(fuse_write_in.self)
        return .write(
            write.fh, offset: try RequestReader.size(write.offset), try reader.data(Int(write.size)),
            dropsSetIDs: write.write_flags & PASSHSM_WRITE_KILL_SUIDGID != 0)
    }

    private static func listing(_ reader: inout RequestReader, plus: Bool) throws(Errno) -> Operation {
        let read = try reader.next(fuse_read_in.self)
        return .readdir(read.fh, offset: try RequestReader.size(read.offset), size: Int(read.size), plus: plus)
    }

    private static func settingAttribute(
        _ reader: inout RequestReader, isExtended: Bool
    ) throws(Errno) -> Operation {
        let (size, flags) = (try reader.next(UInt32.self), try reader.next(UInt32.self))
        var own: UInt32 = 0
        if isExtended { (own, _) = (try reader.next(UInt32.self), try reader.next(UInt32.self)) }
        let name = try reader.name()
        return .setxattr(
            name, try reader.data(Int(size)), flags: Int32(bitPattern: flags),
            dropsSetGID: own & UInt32(FUSE_SETXATTR_ACL_KILL_SGID) != 0)
    }

    /// Nil for an opcode that is not here.
    private static func rarer(_ opcode: UInt32, _ reader: inout RequestReader) throws(Errno) -> Operation? {
        switch fuse_opcode(opcode) {
        case FUSE_FSYNC:
            let sync = try reader.next(fuse_fsync_in.self)
            return .fsync(sync.fh, dataOnly: sync.isDataOnly)
        case FUSE_FALLOCATE:
            let space = try reader.next(fuse_fallocate_in.self)
            return .fallocate(
                space.fh, mode: Int32(bitPattern: space.mode), offset: try RequestReader.size(space.offset),
                length: try RequestReader.size(space.length))
        case FUSE_LSEEK:
            let seek = try reader.next(fuse_lseek_in.self)
            // The lower file system has its own error for an offset below 0.
            return .lseek(
                seek.fh, offset: Int(truncatingIfNeeded: seek.offset), whence: Int32(bitPattern: seek.whence))
        case FUSE_COPY_FILE_RANGE:
            let copy = try reader.next(fuse_copy_file_range_in.self)
            return .copyFileRange(
                CopyRange(
                    source: copy.fh_in, sourceOffset: try RequestReader.size(copy.off_in), target: copy.fh_out,
                    targetOffset: try RequestReader.size(copy.off_out), count: try RequestReader.size(copy.len),
                    flags: UInt32(truncatingIfNeeded: copy.flags)))
        case FUSE_IOCTL:
            let ioctl = try reader.next(fuse_ioctl_in.self)
            return .ioctl(
                command: ioctl.cmd, input: try reader.data(Int(ioctl.in_size)), outputSize: Int(ioctl.out_size))
        case FUSE_SETLK, FUSE_SETLKW: return try locking(&reader, waits: opcode == FUSE_SETLKW.rawValue)
        default: return nil
        }
    }

    /// The kernel sends flock(2) in the form of a POSIX lock. It keeps POSIX locks by itself.
    private static func locking(_ reader: inout RequestReader, waits: Bool) throws(Errno) -> Operation {
        let lock = try reader.next(fuse_lk_in.self)
        guard lock.lk_flags & UInt32(FUSE_LK_FLOCK) != 0 else { throw Errno(rawValue: ENOSYS) }
        let operation =
            switch Int32(bitPattern: lock.lk.type) {
            case F_RDLCK: LOCK_SH
            case F_WRLCK: LOCK_EX
            case F_UNLCK: LOCK_UN
            default: throw Errno(rawValue: EINVAL)
            }
        return .flock(lock.fh, operation: waits ? operation : operation | LOCK_NB)
    }

    private static func changingNames(_ opcode: UInt32, _ reader: inout RequestReader) throws(Errno) -> Operation {
        switch fuse_opcode(opcode) {
        case FUSE_READLINK: return .readlink
        case FUSE_SYMLINK:
            let name = try reader.name()
            return .symlink(name, target: try reader.name())
        case FUSE_MKNOD:
            let node = try reader.next(fuse_mknod_in.self)
            return .mknod(try reader.name(), mode: node.mode, device: dev_t(node.rdev), umask: node.umask)
        case FUSE_MKDIR:
            let directory = try reader.next(fuse_mkdir_in.self)
            return .mkdir(try reader.name(), mode: directory.mode, umask: directory.umask)
        case FUSE_UNLINK: return .unlink(try reader.name())
        case FUSE_RMDIR: return .rmdir(try reader.name())
        case FUSE_RENAME:
            let rename = try reader.next(fuse_rename_in.self)
            let name = try reader.name()
            return .rename(name, to: try reader.name(), in: rename.newdir, flags: 0)
        case FUSE_RENAME2:
            let rename = try reader.next(fuse_rename2_in.self)
            let name = try reader.name()
            return .rename(name, to: try reader.name(), in: rename.newdir, flags: rename.flags)
        case FUSE_LINK:
            let link = try reader.next(fuse_link_in.self)
            return .link(try reader.name(), to: link.oldnodeid)
        default: throw Errno(rawValue: ENOSYS)
        }
    }
}

extension fuse_fsync_in {
    fileprivate var isDataOnly: Bool { fsync_flags & 1 != 0 }
}

extension NewFile {
    fileprivate init(_ reader: inout RequestReader) throws(Errno) {
        let create = try reader.next(fuse_create_in.self)
        self.init(
            mode: create.mode, umask: create.umask, flags: Int32(bitPattern: create.flags),
            dropsSetIDs: create.open_flags & PASSHSM_OPEN_KILL_SUIDGID != 0)
    }
}

extension AttributeChange {
    fileprivate init(_ reader: inout RequestReader) throws(Errno) {
        let new = try reader.next(fuse_setattr_in.self)
        func has(_ bit: Int32) -> Bool { new.valid & UInt32(bit) != 0 }
        func time(_ bit: Int32, _ now: Int32, _ seconds: UInt64, _ nanoseconds: UInt32) -> timespec? {
            guard has(bit) else { return nil }
            return has(now)
                ? FileTime.now : timespec(tv_sec: Int(truncatingIfNeeded: seconds), tv_nsec: Int(nanoseconds))
        }
        self.init()
        if has(FATTR_MODE) { mode = new.mode }
        if has(FATTR_UID) { owner = new.uid }
        if has(FATTR_GID) { group = new.gid }
        if has(FATTR_SIZE) { size = try RequestReader.size(new.size) }
        accessTime = time(FATTR_ATIME, FATTR_ATIME_NOW, new.atime, new.atimensec)
        modificationTime = time(FATTR_MTIME, FATTR_MTIME_NOW, new.mtime, new.mtimensec)
        movesChangeTime = has(FATTR_CTIME)
        dropsSetIDs = new.valid & PASSHSM_FATTR_KILL_SUIDGID != 0
    }
}
