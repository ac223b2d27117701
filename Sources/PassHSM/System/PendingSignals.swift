import Glibc

/// The pending signals of a thread (/proc/TID/status).
package enum PendingSignals {
    /// Signals whose default action does not end a process: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
    private static let harmless = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH]
        .reduce(UInt64(0)) { $0 | bit($1) }

    private static func bit(_ signal: Int32) -> UInt64 { 1 << UInt64(signal - 1) }

    /// Whether pending signals will end `thread`. True also when nothing is known about it, because it is gone or in
    /// another PID namespace (0).
    package static func end(_ thread: pid_t) -> Bool {
        guard let text = SmallFile.text("/proc/\(thread)/status") else { return true }
        var masks: [Substring: UInt64] = [:]
        for line in text.split(separator: "\n") where line.hasPrefix("Sig") || line.hasPrefix("Shd") {
            let fields = line.split(separator: ":")
            if fields.count == 2 { masks[fields[0]] = UInt64(fields[1].trimmed, radix: 16) }
        }
        guard let own = masks["SigPnd"], let shared = masks["ShdPnd"], let blocked = masks["SigBlk"],
            let ignored = masks["SigIgn"], let caught = masks["SigCgt"]
        else { return true }
        // The kernel turns a signal that ends a process into SIGKILL.
        return (own | shared) & bit(SIGKILL) != 0 || (own | shared) & ~(blocked | ignored | caught | harmless) != 0
    }
}
