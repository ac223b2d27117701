/// Why content could not be obtained: an errno that both front ends can answer with, a reason for the program, and a
/// cause for people.
package struct FillError: Error, Hashable, Sendable {
    /// The errnos that fanotify(7) accepts in FAN_DENY_ERRNO (Linux 6.14), and EINTR. EINTR is for a caller that gave
    /// up; only FUSE has to answer such a caller.
    package enum Code: String, Sendable {
        case io = "EIO"
        case permission = "EPERM"
        case busy = "EBUSY"
        case textBusy = "ETXTBSY"
        case again = "EAGAIN"
        case noSpace = "ENOSPC"
        case quota = "EDQUOT"
        case interrupted = "EINTR"
    }

    /// The kind of failure, for code that acts on it.
    package enum Reason: String, Sendable {
        /// The remote has another version than the recorded one.
        case remoteChanged
        /// The remote no longer has the object.
        case remoteGone
        /// The remote did not answer, or answered with an error of its own.
        case remoteFailed
        /// All content arrived, and does not match the remote's digest.
        case wrongContent
        /// The remote gives no digest, and unchecked content must not be shown.
        case uncheckable
        /// The lower file system refused the write.
        case lowerFailed
        /// The record of the file is not trustworthy, and the file holds local changes.
        case recordCorrupt
        case deadline
        case cancelled
        case shutdown
    }

    package let code: Code
    package let reason: Reason
    /// The cause in one line, for the log and for `passhsm state`.
    package let cause: String
    /// How long the remote asked to be left alone (HTTP's Retry-After); nil where it did not say.
    package let retryAfter: Duration?
    /// For `.remoteFailed`: the remote as a whole was unreachable, as far as can be told, and not just this object. See
    /// ``CircuitBreaker``.
    package let isOutage: Bool

    package init(
        _ code: Code, _ reason: Reason, _ cause: String, retryAfter: Duration? = nil, isOutage: Bool = false
    ) {
        self.code = code
        self.reason = reason
        self.cause = cause
        self.retryAfter = retryAfter
        self.isOutage = isOutage
    }

    /// Whether the request was ended by its deadline, its caller or the engine's shutdown. The completion then runs on
    /// a thread that must not wait for any file: it answers first, and leaves the rest to another thread.
    package var comesAtOnce: Bool { [.cancelled, .deadline, .shutdown].contains(reason) }
}
