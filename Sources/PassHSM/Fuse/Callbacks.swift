import CFuse
import CLinux
import Glibc

/// libfuse's operations. Each hands its request over to the file system. These are the only C callbacks that get
/// requests.
///
/// The function is nonisolated, because a closure made in an isolated one dies on a thread that Swift does not know.
func makeOperations() -> fuse_lowlevel_ops {
    var ops = fuse_lowlevel_ops()
    ops.`init` = { user, connection in
        guard let user, let connection else { return }
        Unmanaged<FuseSession>.fromOpaque(user).takeUnretainedValue().negotiate(&connection.pointee)
    }
    ops.lookup = { request, parent, name in
        serve(request) { fs, reply in name.map { fs.lookup(reply.take(), parent, $0) } }
    }
    ops.forget = { request, node, count in
        serve(request) { fs, reply in
            fs.forget(node, count)
            reply.take().none()
        }
    }
    ops.forget_multi = { request, count, all in
        serve(request) { fs, reply in
            for item in UnsafeBufferPointer(start: all, count: count) { fs.forget(item.ino, item.nlookup) }
            reply.take().none()
        }
    }
    ops.getattr = { request, node, _ in
        serve(request) { fs, reply in
            if FuseSession.requestFlags & RequestTranslation.isOther != 0 {
                fs.statx(reply.take(), node)
            } else {
                fs.getattr(reply.take(), node)
            }
        }
    }
    ops.setattr = { request, node, new, valid, _ in
        serve(request) { fs, reply in new.map { fs.setattr(reply.take(), node, $0.pointee, valid) } }
    }
    ops.readlink = { request, node in serve(request) { fs, reply in fs.readlink(reply.take(), node) } }
    addNameOperations(&ops)
    addFileOperations(&ops)
    addDirectoryOperations(&ops)
    addAttributeOperations(&ops)
    return ops
}

private func addNameOperations(_ ops: inout fuse_lowlevel_ops) {
    ops.mknod = { request, parent, name, mode, device in
        serve(request) { fs, reply in
            name.map { fs.mknod(reply.take(), parent, $0, mode: mode, device: device) }
        }
    }
    ops.mkdir = { request, parent, name, mode in
        serve(request) { fs, reply in name.map { fs.mkdir(reply.take(), parent, $0, mode: mode) } }
    }
    ops.symlink = { request, target, parent, name in
        serve(request) { fs, reply in
            guard let target, let name else { return }
            fs.symlink(reply.take(), target, parent, name)
        }
    }
    ops.link = { request, node, parent, name in
        serve(request) { fs, reply in name.map { fs.link(reply.take(), node, parent, $0) } }
    }
    ops.unlink = { request, parent, name in
        serve(request) { fs, reply in name.map { fs.unlink(reply.take(), parent, $0) } }
    }
    ops.rmdir = { request, parent, name in
        serve(request) { fs, reply in name.map { fs.rmdir(reply.take(), parent, $0) } }
    }
    ops.rename = { request, parent, name, newParent, newName, flags in
        serve(request) { fs, reply in
            guard let name, let newName else { return }
            fs.rename(reply.take(), parent, name, newParent, newName, flags: flags)
        }
    }
}

private func addFileOperations(_ ops: inout fuse_lowlevel_ops) {
    ops.open = { request, node, info in
        serve(request) { fs, reply in
            info.map { fs.open(reply.take(), node, flags: $0.pointee.flags, FuseSession.requestFlags) }
        }
    }
    ops.create = { request, parent, name, mode, info in
        serve(request) { fs, reply in
            guard let name, let info else { return }
            fs.create(
                reply.take(), parent, name, mode: mode, flags: info.pointee.flags, FuseSession.requestFlags)
        }
    }
    ops.read = { request, _, size, offset, info in
        serve(request) { fs, reply in
            guard let info = info?.pointee else { return }
            // Reads past the page cache name their caller.
            let isDirect = info.lock_owner != 0 || info.flags & PASSHSM_O_DIRECT != 0
            fs.read(reply.take(), info.fh, size: size, offset: offset, isDirect: isDirect)
        }
    }
    ops.write_buf = { request, _, buffers, offset, info in
        serve(request) { fs, reply in
            guard let buffers, let info else { return }
            // The bytes are in one piece and in memory, because the session does not ask for splicing.
            let first = buffers.pointee.buf
            let bytes = UnsafeRawBufferPointer(start: first.mem, count: first.size)
            fs.write(reply.take(), info.pointee.fh, bytes, offset: offset, flags: FuseSession.requestFlags)
        }
    }
    ops.flush = { request, _, info in serve(request) { fs, reply in info.map { fs.flush(reply.take(), $0.pointee.fh) } }
    }
    ops.release = { request, _, info in
        serve(request) { fs, reply in info.map { fs.release(reply.take(), $0.pointee.fh) } }
    }
    ops.fsync = { request, _, dataOnly, info in
        serve(request) { fs, reply in info.map { fs.fsync(reply.take(), $0.pointee.fh, dataOnly: dataOnly != 0) } }
    }
    ops.fallocate = { request, _, mode, offset, length, info in
        serve(request) { fs, reply in
            info.map { fs.fallocate(reply.take(), $0.pointee.fh, mode: mode, offset: offset, length: length) }
        }
    }
    ops.copy_file_range = { request, _, sourceOffset, source, _, targetOffset, target, count, flags in
        serve(request) { fs, reply in
            guard let source, let target else { return }
            fs.copy(
                reply.take(), from: source.pointee.fh, at: sourceOffset, to: target.pointee.fh, at: targetOffset,
                count: count, flags: flags)
        }
    }
    ops.lseek = { request, _, offset, whence, info in
        serve(request) { fs, reply in info.map { fs.seek(reply.take(), $0.pointee.fh, offset: offset, whence: whence) }
        }
    }
    ops.ioctl = { request, node, command, _, _, _, input, inputSize, outputSize in
        serve(request) { fs, reply in
            let input = UnsafeRawBufferPointer(start: input, count: inputSize)
            fs.ioctl(reply.take(), node, command, input, outputSize: outputSize)
        }
    }
    ops.flock = { request, _, info, operation in
        serve(request) { fs, reply in info.map { fs.flock(reply.take(), $0.pointee.fh, operation) } }
    }
}

private func addDirectoryOperations(_ ops: inout fuse_lowlevel_ops) {
    ops.opendir = { request, node, _ in serve(request) { fs, reply in fs.opendir(reply.take(), node) } }
    ops.readdir = { request, _, size, offset, info in
        serve(request) { fs, reply in
            info.map { fs.readdir(reply.take(), $0.pointee.fh, size: size, offset: offset, plus: false) }
        }
    }
    ops.readdirplus = { request, _, size, offset, info in
        serve(request) { fs, reply in
            info.map { fs.readdir(reply.take(), $0.pointee.fh, size: size, offset: offset, plus: true) }
        }
    }
    ops.releasedir = { request, _, info in
        serve(request) { fs, reply in info.map { fs.releasedir(reply.take(), $0.pointee.fh) } }
    }
    ops.fsyncdir = { request, _, dataOnly, info in
        serve(request) { fs, reply in info.map { fs.fsyncdir(reply.take(), $0.pointee.fh, dataOnly: dataOnly != 0) } }
    }
}

private func addAttributeOperations(_ ops: inout fuse_lowlevel_ops) {
    ops.statfs = { request, _ in serve(request) { fs, reply in fs.statfs(reply.take()) } }
    ops.setxattr = { request, node, name, value, size, flags in
        serve(request) { fs, reply in
            let value = UnsafeRawBufferPointer(start: value, count: size)
            name.map { fs.setxattr(reply.take(), node, $0, value, flags: flags, FuseSession.requestFlags) }
        }
    }
    ops.getxattr = { request, node, name, size in
        serve(request) { fs, reply in name.map { fs.getxattr(reply.take(), node, $0, size: size) } }
    }
    ops.listxattr = { request, node, size in
        serve(request) { fs, reply in fs.listxattr(reply.take(), node, size: size) }
    }
    ops.removexattr = { request, node, name in
        serve(request) { fs, reply in name.map { fs.removexattr(reply.take(), node, $0) } }
    }
    // With default_permissions the kernel checks access(2) by itself. It sends ACCESS only where it does not.
    ops.access = { request, _, _ in serve(request) { _, reply in reply.take().done() } }
}

/// Lets `body` take the reply of `request`. A reply that it does not take is answered with EIO.
private func serve(_ request: fuse_req_t?, _ body: (FileSystem, inout ReplySlot) -> Void) {
    guard let request, let user = fuse_req_userdata(request) else { return }
    let session = Unmanaged<FuseSession>.fromOpaque(user).takeUnretainedValue()
    var slot = ReplySlot(Reply(request))
    body(session.fileSystem, &slot)
}

/// A reply that is taken once. It exists because a closure's parameter cannot be consumed inside another closure.
struct ReplySlot: ~Copyable {
    private var reply: Reply?

    init(_ reply: consuming Reply) { self.reply = consume reply }

    mutating func take() -> Reply {
        guard let reply = reply.take() else { preconditionFailure("a reply was taken twice") }
        return reply
    }
}
