import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem

/// IOCTL: the inode flags and extended attributes of lsattr(1), chattr(1) and xfs_io(8). Every other command is
/// refused.
///
/// FS_IOC_GETVERSION has to be refused: programs pass an int, and FUSE would write the eight bytes that the command's
/// number names.
///
/// The kernel has checked whether the caller may change them (fs/file_attr.c): owner, CAP_LINUX_IMMUTABLE and project.
extension FileSystem {
    func ioctl(
        _ reply: consuming Reply, _ node: UInt64, _ command: UInt32, _ input: UnsafeRawBufferPointer,
        outputSize: Int
    ) {
        let known = [
            PASSHSM_FS_IOC_GETFLAGS, PASSHSM_FS_IOC_SETFLAGS, PASSHSM_FS_IOC_FSGETXATTR, PASSHSM_FS_IOC_FSSETXATTR,
        ]
        // Large enough for the largest of their arguments, struct fsxattr with 28 bytes.
        var argument = [UInt8](repeating: 0, count: 64)
        guard known.contains(command), input.count <= argument.count, outputSize <= argument.count else {
            return reply.error(ENOTTY)
        }
        argument.replaceSubrange(0..<input.count, with: input)
        do throws(Errno) {
            let inode = try inode(node)
            let lower =
                try inode === root ? tree.root.reopen(O_RDONLY | O_DIRECTORY) : open(inode, O_RDONLY | O_NONBLOCK)
            if command == PASSHSM_FS_IOC_SETFLAGS, !reply.caller.credentials.has(ThreadCredentials.usesResources) {
                try checkJournaling(lower, argument)
            }
            let changes = command == PASSHSM_FS_IOC_SETFLAGS || command == PASSHSM_FS_IOC_FSSETXATTR
            if changes {
                noteChange(inode)
                // Nothing can be recorded of an immutable file, so the record is written before the command.
                if let file = inode.content, !file.isReadOnly { try? file.stored.commit() }
            }
            try argument.withMutableBytes { bytes throws(Errno) in try lower.ioctl(command, bytes) }
            // The kernel does not know that the command moves the change time.
            if changes { forgetAttributes(of: inode) }
        } catch { return reply.error(error) }
        reply.ioctl(Array(argument[..<outputSize]))
    }

    /// Refuses a change of the journaling flag. ext4 demands CAP_SYS_RESOURCE for it, but would look at the daemon's
    /// capabilities.
    private func checkJournaling(_ lower: Descriptor, _ new: [UInt8]) throws(Errno) {
        var old = [UInt8](repeating: 0, count: 64)
        try old.withMutableBytes { bytes throws(Errno) in try lower.ioctl(PASSHSM_FS_IOC_GETFLAGS, bytes) }
        func flags(_ argument: [UInt8]) -> UInt32 {
            argument.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
        }
        if (flags(old) ^ flags(new)) & PASSHSM_FS_JOURNAL_DATA_FL != 0 { throw Errno(rawValue: EPERM) }
    }
}
