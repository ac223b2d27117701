import CLinux
import Glibc
import HSMSystem

/// What the thread that waits for an event is doing: the system call that it waits in (/proc/PID/syscall).
///
/// An event does not tell whether bytes are read or changed. What is not known to be a read is dealt with as a change. The
/// thread may have been killed, and its number used again: then its event needs no right answer any more; so nothing is
/// ever destroyed on the strength of this.
struct Caller {
    private let number: Int
    private let arguments: [UInt]

    /// Nil where it cannot be told: no /proc, a kernel thread, one of io_uring(7).
    ///
    /// - Parameter mayBlock: wait for up to two milliseconds for a thread that has not gone to sleep yet.
    init?(_ thread: Int32, mayBlock: Bool) {
        for attempt in 0..<(mayBlock ? 20 : 1) {
            if attempt > 0 { usleep(100) }
            guard let text = Self.text("/proc/\(thread)/syscall") else { return nil }
            if text.starts(with: "running".utf8) { continue }
            self.init(text)
            return
        }
        return nil
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
    init?(_ text: [UInt8]) {
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
    var opensForReading: Bool {
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
    var mayTruncate: Bool { [PASSHSM_SYS_TRUNCATE, 92, 193].contains(number) }

    /// It reads the bytes that its event tells of, and no others. Mappings can grow (mremap(2)) without another event, and
    /// before Linux 6.18 the kernel tells a wrong range of them; of clones (FICLONE) it tells an empty one. No 32-bit program
    /// on x86 reaches more than it tells by a call that has one of these numbers.
    var readsRange: Bool {
        [
            PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_READV, PASSHSM_SYS_PREADV, PASSHSM_SYS_PREADV2,
            PASSHSM_SYS_SENDFILE, PASSHSM_SYS_SPLICE, PASSHSM_SYS_COPY_FILE_RANGE, PASSHSM_SYS_IO_SUBMIT,
            PASSHSM_SYS_IO_URING_ENTER,
        ].contains(number)
    }

    /// Whether the thread is one of this process.
    static func isOwn(_ thread: Int32) -> Bool { passhsm_tgkill(thread, 0) == 0 }
}
