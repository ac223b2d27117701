import CLinux
import Glibc

/// The system call in which the thread behind a request waits (/proc/PID/syscall).
///
/// Neither an event of fanotify(7) nor a request of FUSE tells why its bytes are wanted. An fanotify event that is not
/// known to be a read is treated as a change. The thread may have been killed, and its number may belong to another
/// thread by now. Nothing is therefore ever destroyed because of this information.
package struct CallerSyscall: Sendable {
    /// The activity of a thread, as far as /proc tells.
    package enum Activity: Sendable {
        case waits(CallerSyscall)
        /// The thread did not go to sleep: it runs while the answer is made.
        case runs
        /// There is no /proc, or the thread belongs to the kernel, to io_uring(7) or to another PID namespace (0).
        case unknown
    }

    private let number: Int
    private let arguments: [UInt]

    /// Nil where the system call is not known; see ``Activity/unknown``.
    ///
    /// - Parameter mayBlock: waits up to two milliseconds for a thread that has not gone to sleep yet.
    package init?(_ thread: Int32, mayBlock: Bool) {
        guard case .waits(let call) = Self.activity(of: thread, looks: mayBlock ? 20 : 1) else { return nil }
        self = call
    }

    /// Looks at what a thread is doing.
    ///
    /// - Parameter looks: how many times to look, a tenth of a millisecond apart, while the thread has not gone to
    ///   sleep.
    package static func activity(of thread: Int32, looks: Int) -> Activity {
        guard thread > 0 else { return .unknown }
        for attempt in 0..<looks {
            if attempt > 0 { usleep(100) }
            guard let text = Self.text("/proc/\(thread)/syscall") else { return .unknown }
            if !text.starts(with: "running".utf8) { return Self(text).map { .waits($0) } ?? .unknown }
        }
        return .runs
    }

    /// The user id of a thread; nil where it is not known.
    package static func user(of thread: Int32) -> uid_t? {
        var status = stat()
        return thread > 0 && stat("/proc/\(thread)", &status) == 0 ? status.st_uid : nil
    }

    /// One read(2): the kernel gives the whole file at once.
    private static func text(_ path: String) -> [UInt8]? {
        guard let file = try? Descriptor.open(path, O_RDONLY | O_NOCTTY) else { return nil }
        let text = [UInt8](unsafeUninitializedCapacity: 512) { bytes, count in
            count = max(0, read(file.raw, bytes.baseAddress, bytes.count))
        }
        return text.isEmpty ? nil : text
    }

    /// Parses the file's content. It works on bytes because this runs for each event, and `Character`s would cost more
    /// than the rest.
    ///
    /// - Parameter text: the content of /proc/PID/syscall.
    package init?(_ text: [UInt8]) {
        let fields = text.split(separator: UInt8(ascii: " "))
        guard fields.count >= 7, let number = Int(Self.string(fields[0])), number >= 0 else { return nil }
        var arguments: [UInt] = []
        for field in fields[1...6] {
            guard field.starts(with: "0x".utf8), let value = UInt(Self.string(field.dropFirst(2)), radix: 16) else {
                return nil
            }
            arguments.append(value)
        }
        self.number = number
        self.arguments = arguments
    }

    private static func string(_ text: ArraySlice<UInt8>) -> String { String(decoding: text, as: UTF8.self) }

    /// Whether the call opens a file to read or execute it, without truncating it.
    package var opensForReading: Bool {
        let flags: UInt
        switch number {
        case PASSHSM_SYS_EXECVE, PASSHSM_SYS_EXECVEAT: return true
        case PASSHSM_SYS_OPEN: flags = arguments[1]
        case PASSHSM_SYS_OPENAT: flags = arguments[2]
        default: return false
        }
        return flags & UInt(O_ACCMODE) == UInt(O_RDONLY) && flags & UInt(O_TRUNC) == 0
    }

    /// Whether the call may truncate a file by its path, which need not be open. 92 and 193 are the numbers of 32-bit
    /// programs on x86, which look like 64-bit ones here.
    package var mayTruncate: Bool { [PASSHSM_SYS_TRUNCATE, 92, 193].contains(number) }

    /// Whether the call reads only the bytes that its event names. Mappings are not among these calls: they can grow
    /// (mremap(2)) without another event, and before Linux 6.18 the kernel names a wrong range for them. For clones
    /// (FICLONE) it names an empty range. No 32-bit program on x86 reaches more than its event names by a call with one
    /// of these numbers.
    package var readsRange: Bool {
        [
            PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_READV, PASSHSM_SYS_PREADV, PASSHSM_SYS_PREADV2,
            PASSHSM_SYS_SENDFILE, PASSHSM_SYS_SPLICE, PASSHSM_SYS_COPY_FILE_RANGE, PASSHSM_SYS_IO_SUBMIT,
            PASSHSM_SYS_IO_URING_ENTER,
        ].contains(number)
    }

    /// Whether the call asks for content without waiting for it: readahead(2), posix_fadvise(2), madvise(2), or mmap(2)
    /// with MAP_POPULATE. 32-bit programs on x86 use other numbers, so their calls count as waiting.
    package var readsAhead: Bool {
        [PASSHSM_SYS_READAHEAD, PASSHSM_SYS_FADVISE, PASSHSM_SYS_MADVISE, PASSHSM_SYS_MMAP].contains(number)
    }

    /// Whether the call waits for something other than a file's content: for time, other threads or processes, or a
    /// descriptor.
    package var waitsForOther: Bool {
        [
            PASSHSM_SYS_NANOSLEEP, PASSHSM_SYS_CLOCK_NANOSLEEP, PASSHSM_SYS_POLL, PASSHSM_SYS_PPOLL, PASSHSM_SYS_SELECT,
            PASSHSM_SYS_PSELECT, PASSHSM_SYS_EPOLL_WAIT, PASSHSM_SYS_EPOLL_PWAIT, PASSHSM_SYS_FUTEX, PASSHSM_SYS_WAIT4,
            PASSHSM_SYS_WAITID, PASSHSM_SYS_SIGSUSPEND, PASSHSM_SYS_SIGTIMEDWAIT,
        ].contains(number)
    }

    /// Whether the thread is one of this process.
    package static func isOwn(_ thread: Int32) -> Bool { passhsm_tgkill(thread, 0) == 0 }
}
