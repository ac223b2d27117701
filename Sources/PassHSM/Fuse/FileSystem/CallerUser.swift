import Glibc
import HSMFuseDoor
import HSMSystem

/// The user of a request. It is looked up only when it is needed, while the request waits for its answer.
struct CallerUser: Sendable {
    private let id: uid_t
    private let thread: pid_t

    init(_ caller: Caller) { (id, thread) = (caller.user, caller.thread) }

    /// The user id. The kernel does not tell it where the mount can have mapped owners; then it is read from /proc.
    /// `uid_t.max` stands for all unknown callers, which are in another PID namespace.
    var user: uid_t {
        if id != uid_t.max { return id }
        return ThreadCredentials(of: thread).user ?? uid_t.max
    }
}
