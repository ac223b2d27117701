import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// A group of fanotify(7) for pre-content events: sets its marks, reads its events and answers them. Safe on every
/// thread.
package final class EventGroup: Sendable {
    package let descriptor: Descriptor

    /// The events that a mark on a mount or a file system asks for: every open and every access.
    static let mask = PASSHSM_FAN_OPEN_PERM | PASSHSM_FAN_PRE_ACCESS

    /// A new group (fanotify_init(2)).
    ///
    /// - Throws: EPERM without CAP_SYS_ADMIN; EINVAL before Linux 6.14.
    package init() throws(Errno) { descriptor = Descriptor(owning: try check { passhsm_fanotify_group() }) }

    /// Wraps a group that another process has made.
    package init(_ descriptor: Descriptor) { self.descriptor = descriptor }

    // MARK: Marks

    /// Marks the mount that `directory` (O_PATH will do) is on.
    ///
    /// - Throws: EOPNOTSUPP where the file system has no pre-content events; EINVAL before Linux 6.14.
    package func markMount(of directory: Descriptor) throws(Errno) {
        _ = try check { passhsm_fanotify_mark_mount(descriptor.raw, Self.mask, directory.raw, ".") }
    }

    /// Marks the whole file system that `directory` is on. Accesses through any of its mounts raise events.
    package func markFileSystem(of directory: Descriptor) throws(Errno) {
        _ = try check { passhsm_fanotify_mark_file_system(descriptor.raw, Self.mask, directory.raw, ".") }
    }

    /// Accesses through the mount of `directory` raise no events.
    package func ignoreMount(of directory: Descriptor) throws(Errno) {
        _ = try check { passhsm_fanotify_ignore_mount(descriptor.raw, Self.mask, directory.raw, ".") }
    }

    /// The events that the kernel no longer raises for one file.
    enum Ignored {
        /// Every event.
        case all
        /// Reads and writes, also through mappings. Opens still raise events.
        case access

        var mask: UInt64 {
            switch self {
            case .all: EventGroup.mask
            case .access: PASSHSM_FAN_PRE_ACCESS
            }
        }
    }

    /// From now on the kernel raises no events of the kind `ignored`, and all others, for the file that `file` is open
    /// on, not with O_PATH. The kernel forgets this when it drops the inode from memory.
    func ignore(_ ignored: Ignored, of file: Descriptor) {
        // A failure is harmless: needless events only cost time.
        guard passhsm_fanotify_ignore(descriptor.raw, ignored.mask, file.raw) == 0 else { return }
        let rest = Self.mask & ~ignored.mask
        if rest != 0 { _ = passhsm_fanotify_unignore(descriptor.raw, rest, file.raw) }
    }

    /// From now on the kernel raises every event for the file that `file` is open on, not with O_PATH.
    func unignore(_ file: Descriptor) throws(Errno) {
        do throws(Errno) {
            _ = try check { passhsm_fanotify_unignore(descriptor.raw, Self.mask, file.raw) }
        } catch {
            // Nothing was ignored.
            if error.rawValue != ENOENT { throw error }
        }
    }

    /// Whether the marked mount with the unique id `mount` still exists. A mount that was detached everywhere exists
    /// while files of it are open.
    package func hasMount(_ mount: UInt64) -> Bool { MountTable.isAttached(mount) || hasMountMark }

    /// Whether the group has a mark on a mount. The kernel's list also contains the marks of files: it takes about four
    /// microseconds for each of them, and no mark can be set meanwhile. If the list cannot be read, the mount counts as
    /// existing. The wrong answer "gone" would make the guardian close the group, and the kernel would then allow every
    /// access that waits.
    private var hasMountMark: Bool {
        guard let bytes = try? SmallFile.read(BytePath("/proc/self/fdinfo/\(descriptor.raw)"), limit: .max) else {
            return true
        }
        return bytes.split(separator: 0x0a).contains { line in
            guard line.starts(with: "fanotify mnt_id:".utf8) else { return false }
            return !String(decoding: line, as: UTF8.self).contains(" mask:0 ")
        }
    }

    /// ``hasMount(_:)``, and the pause to make before the next look, so that looking takes a fiftieth of the time.
    func look(for mount: UInt64) -> (hasMount: Bool, pause: Duration) {
        let begin = ContinuousClock.now
        let hasMount = hasMount(mount)
        return (hasMount, (ContinuousClock.now - begin) * 50)
    }

    // MARK: Events

    /// Waits for events, and reads them into `buffer`.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> EventBatch {
        let count = try check { Glibc.read(descriptor.raw, buffer.baseAddress, buffer.count) }
        return EventBatch(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }

    /// Answers the event of the number `event`: nil allows it.
    ///
    /// - Parameter refusal: one of ``Errno/answerable``; any other is answered as EIO.
    /// - Throws: ENOENT when no event of this number waits: it was answered, or the waiting thread was killed.
    package func answer(_ event: Int32, _ refusal: Errno?) throws(Errno) {
        var response = PASSHSM_FAN_ALLOW
        if let refusal {
            let code = Errno.answerable.contains(refusal.rawValue) ? refusal.rawValue : EIO
            response = PASSHSM_FAN_DENY | UInt32(code) << UInt32(PASSHSM_FAN_ERRNO_SHIFT)
        }
        _ = try check { passhsm_fanotify_answer(descriptor.raw, event, response) }
    }

    /// Denies with EIO every event that was read and is not answered, whatever its number. Returns how many there were.
    ///
    /// - Parameters:
    ///   - limit: numbers are below this.
    ///   - kept: numbers of events that are not denied.
    package func denyAll(below limit: Int, except kept: Set<Int32> = []) -> Int {
        var denied = 0
        for number in 0..<Int32(clamping: limit) where !kept.contains(number) {
            // Events that two processes have read can have the same number. Each answer takes one of them.
            while passhsm_fanotify_answer(
                descriptor.raw, number, PASSHSM_FAN_DENY | UInt32(EIO) << UInt32(PASSHSM_FAN_ERRNO_SHIFT)) == 0
            {
                denied += 1
            }
        }
        return denied
    }
}

extension Errno {
    /// The errnos that a permission event can be denied with (FAN_DENY_ERRNO).
    package static let answerable: Set<Int32> = [
        Glibc.EIO, Glibc.EPERM, Glibc.EBUSY, Glibc.ETXTBSY, Glibc.EAGAIN, Glibc.ENOSPC, Glibc.EDQUOT,
    ]
}
