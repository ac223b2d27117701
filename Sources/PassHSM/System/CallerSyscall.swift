import CLinux
import Glibc

/// What the thread that waits for an answer is doing: the system call that it waits in (/proc/PID/syscall).
///
/// Neither an event of fanotify(7) nor a request of FUSE tells why its bytes are wanted. Of events, what is not known to be a
/// read is dealt with as a change. The thread may have been killed, and its number used again: then it needs no right
/// answer any more; so nothing is ever destroyed on the strength of this.
package struct CallerSyscall: Sendable {
    /// What is known of a thread.
    package enum Activity: Sendable {
        case waits(CallerSyscall)
        /// It did not go to sleep: it goes on while the answer is made.
        case runs
        /// No /proc, a kernel thread, one of io_uring(7), of another PID namespace (0).
        case unknown
    }

    private let number: Int
    private let arguments: [UInt]

    /// Nil where it cannot be told; see ``Activity/unknown``.
    ///
    /// - Parameter mayBlock: wait for up to two milliseconds for a thread that has not gone to sleep yet.
    package init?(_ thread: Int32, mayBlock: Bool) {
        guard case .waits(let call) = Self.activity(of: thread, looks: mayBlock ? 20 : 1) else { return nil }
        self = call
    }

    /// - Parameter looks: how often it is looked at while it has not gone to sleep, a tenth of a millisecond apart.
    package static func activity(of thread: Int32, looks: Int) -> Activity {
        guard thread > 0 else { return .unknown }
        for attempt in 0..<looks {
            if attempt > 0 { usleep(100) }
            guard let text = Self.text("/proc/\(thread)/syscall") else { return .unknown }
            if !text.starts(with: "running".utf8) { return Self(text).map { .waits($0) } ?? .unknown }
        }
        return .runs
    }

    /// The user of a thread; nil where it cannot be told.
    package static func user(of thread: Int32) -> uid_t? {
        var status = stat()
        return thread > 0 && stat("/proc/\(thread)", &status) == 0 ? status.st_uid : nil
    }

    /// The kernel gives all of it at once.
    private static func text(_ path: String) -> [UInt8]? {
        guard let file = try? Descriptor.open(path, O_RDONLY | O_NOCTTY) else { return nil }
        let text = [UInt8](unsafeUninitializedCapacity: 512) { bytes, count in
            count = max(0, read(file.raw, bytes.baseAddress, bytes.count))
        }
        return text.isEmpty ? nil : text
    }

    /// By bytes: it is read for each event, and characters cost more than all else of it.
    ///
    /// - Parameter text: the file's content.
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

    /// It opens a file to read it, or to execute it, and does not cut it off.
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

    /// It may cut off a file by its path, for which the file need not be open. 92 and 193 are the numbers of 32-bit
    /// programs on x86, which cannot be told from others.
    package var mayTruncate: Bool { [PASSHSM_SYS_TRUNCATE, 92, 193].contains(number) }

    /// It reads the bytes that its event tells of, and no others. Mappings can grow (mremap(2)) without another event, and
    /// before Linux 6.18 the kernel tells a wrong range of them; of clones (FICLONE) it tells an empty one. No 32-bit program
    /// on x86 reaches more than it tells by a call that has one of these numbers.
    package var readsRange: Bool {
        [
            PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_READV, PASSHSM_SYS_PREADV, PASSHSM_SYS_PREADV2,
            PASSHSM_SYS_SENDFILE, PASSHSM_SYS_SPLICE, PASSHSM_SYS_COPY_FILE_RANGE, PASSHSM_SYS_IO_SUBMIT,
            PASSHSM_SYS_IO_URING_ENTER,
        ].contains(number)
    }

    /// It asks for content that it does not wait for: readahead(2), posix_fadvise(2), madvise(2), or mmap(2) with
    /// MAP_POPULATE. 32-bit programs on x86 have other numbers: what they ask for counts as waited for.
    package var readsAhead: Bool {
        [PASSHSM_SYS_READAHEAD, PASSHSM_SYS_FADVISE, PASSHSM_SYS_MADVISE, PASSHSM_SYS_MMAP].contains(number)
    }

    /// It waits for something else than a file's content: for time, other threads or processes, or a descriptor.
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
