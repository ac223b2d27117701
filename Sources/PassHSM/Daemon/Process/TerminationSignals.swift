import Glibc
import HSMSystem

/// Turns SIGTERM, SIGINT and SIGHUP into calls on a thread of their own.
///
/// To be made before any other thread: the signals are blocked in all of them.
struct TerminationSignals: Sendable {
    private static let all = [SIGTERM, SIGINT, SIGHUP]

    init() {
        var set = Self.set
        pthread_sigmask(SIG_BLOCK, &set, nil)
        // If a client of the control socket goes away, a write to it returns an error instead of raising SIGPIPE.
        signal(SIGPIPE, SIG_IGN)
    }

    private static var set: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in all { sigaddset(&set, signal) }
        return set
    }

    /// Calls `end` at each SIGTERM and SIGINT that comes from now on, or came since the blocking, and `reload` at each
    /// SIGHUP.
    func onArrival(
        end: @escaping @Sendable () -> Void, reload: @escaping @Sendable () -> Void
    ) throws(Errno) {
        try startThread(name: "signals") {
            var set = Self.set
            var number: Int32 = 0
            while sigwait(&set, &number) == 0 { number == SIGHUP ? reload() : end() }
        }
    }
}
