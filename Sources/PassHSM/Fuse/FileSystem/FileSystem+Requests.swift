import HSMFuseDoor
import HSMSystem

/// Hands each request to the method that answers it.
extension FileSystem: RequestHandler {
    func prepareThread() { CallerIdentity.prepareThread() }

    func handle(_ request: Request, _ reply: consuming Reply) {
        let node = request.node
        switch request.operation {
        case .lookup(let name): lookup(reply, node, name)
        case .getattr: getattr(reply, node)
        case .statx: statx(reply, node)
        case .setattr(let change): setattr(reply, node, change)
        case .readlink: readlink(reply, node)
        case .symlink(let name, let target): symlink(reply, target, node, name)
        case .mknod(let name, let mode, let device, let umask):
            mknod(reply, node, name, mode: mode, device: device, umask: umask)
        case .mkdir(let name, let mode, let umask): mkdir(reply, node, name, mode: mode, umask: umask)
        case .unlink(let name): unlink(reply, node, name)
        case .rmdir(let name): rmdir(reply, node, name)
        case .rename(let name, let newName, let newParent, let flags):
            rename(reply, node, name, newParent, newName, flags: flags)
        case .link(let name, let inode): link(reply, inode, node, name)
        case .open(let flags, let dropsSetIDs): open(reply, node, flags: flags, dropsSetIDs: dropsSetIDs)
        case .create(let name, let new): create(reply, node, name, new)
        case .tmpfile(let new): createUnnamed(reply, node, new)
        case .read(let handle, let offset, let size, let isDirect):
            read(reply, handle, size: size, offset: offset, isDirect: isDirect)
        case .write(let handle, let offset, let bytes, let dropsSetIDs):
            write(reply, handle, bytes, offset: offset, dropsSetIDs: dropsSetIDs)
        case .flush(let handle): flush(reply, handle)
        case .release(let handle): release(reply, handle)
        case .fsync(let handle, let dataOnly): fsync(reply, handle, dataOnly: dataOnly)
        case .fallocate(let handle, let mode, let offset, let length):
            fallocate(reply, handle, mode: mode, offset: offset, length: length)
        case .lseek(let handle, let offset, let whence): seek(reply, handle, offset: offset, whence: whence)
        case .copyFileRange(let ranges): copy(reply, ranges)
        case .flock(let handle, let operation): flock(reply, handle, operation)
        case .ioctl(let command, let input, let size): ioctl(reply, node, command, input, outputSize: size)
        case .opendir: opendir(reply, node)
        case .readdir(let handle, let offset, let size, let plus):
            readdir(reply, handle, size: size, offset: offset, plus: plus)
        case .releasedir(let handle): releasedir(reply, handle)
        case .fsyncdir(let handle, let dataOnly): fsyncdir(reply, handle, dataOnly: dataOnly)
        case .statfs: statfs(reply)
        case .setxattr(let name, let value, let flags, let dropsSetGID):
            setxattr(reply, node, name, value, flags: flags, dropsSetGID: dropsSetGID)
        case .getxattr(let name, let size): getxattr(reply, node, name, size: size)
        case .listxattr(let size): listxattr(reply, node, size: size)
        case .removexattr(let name): removexattr(reply, node, name)
        case .access: reply.done()
        }
    }
}
