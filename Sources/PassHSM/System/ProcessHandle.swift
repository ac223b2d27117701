import CLinux
import Glibc

/// A handle of another process, which never refers to a later process with the same id (pidfd_open(2)).
package struct ProcessHandle: Sendable {
    private let descriptor: Descriptor
    package let id: Int32

    /// Opens a handle of process `id`.
    ///
    /// - Parameter startTime: the process's ``startTime(of:)``; nil for whichever process has the id now.
    /// - Throws: ESRCH when the process is gone.
    package init(id: Int32, startTime: UInt64? = nil) throws(Errno) {
        descriptor = Descriptor(owning: try check { passhsm_pidfd_open(id) })
        self.id = id
        // Checked after the handle was taken, so the handle refers to the process that was checked.
        if let startTime, ProcessHandle.startTime(of: id) != startTime { throw Errno(rawValue: ESRCH) }
    }

    /// Waits for the process to end. False when `seconds` passed first.
    package func waitForEnd(seconds: Double) throws(Errno) -> Bool {
        try descriptor.wait(for: Int16(POLLIN), until: Deadline(seconds: seconds))
    }

    /// When the process started, in clock ticks since boot (/proc/PID/stat, field 22). Nil when there is no such
    /// process, or it is a zombie.
    package static func startTime(of id: Int32) -> UInt64? {
        guard let content = try? SmallFile.read(BytePath("/proc/\(id)/stat")),
            // The second field is the program's name, which may hold spaces and parentheses.
            let end = content.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = String(decoding: content[(end + 1)...], as: UTF8.self).split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }
}

/// The moment at which a wait is given up, on the monotonic clock.
package struct Deadline: Sendable {
    private let end: ContinuousClock.Instant

    package init(seconds: Double) { end = .now + .seconds(seconds) }

    package var hasPassed: Bool { ContinuousClock.now >= end }

    /// The remaining time in milliseconds, as poll(2) takes it.
    package var milliseconds: Int32 {
        let left = (end - .now) / .milliseconds(1)
        return left <= 0 ? 0 : Int32(min(left.rounded(.up), 1e9))
    }
}

extension Descriptor {
    /// poll(2) for `events`, an error or a hang-up. False when the deadline passed first.
    package func wait(for events: Int16, until deadline: Deadline) throws(Errno) -> Bool {
        while true {
            var poll = pollfd(fd: raw, events: events, revents: 0)
            let count = Glibc.poll(&poll, 1, deadline.milliseconds)
            if count > 0 { return true }
            if count == 0, deadline.hasPassed { return false }
            if count < 0, errno != EINTR { throw Errno(rawValue: errno) }
        }
    }
}
