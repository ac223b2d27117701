/// Why content could not be had: an errno from the set that both front ends can answer, and the cause in words.
package struct FillError: Error, Hashable, Sendable {
    /// The errnos that fanotify(7) takes in FAN_DENY_ERRNO (Linux 6.14), and EINTR for a caller that gave up, whom FUSE
    /// answers and fanotify never has to.
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

    /// What happened, for those who act on it.
    package enum Reason: String, Sendable {
        /// The remote has another version than the recorded one.
        case remoteChanged
        /// The remote no longer has the object.
        case remoteGone
        /// The remote did not answer, or answered with an error of its own.
        case remoteFailed
        /// All of it came, and it is not what the remote's digest is of.
        case wrongContent
        /// There is no digest to check the content by, and it may not be shown unchecked.
        case uncheckable
        /// The lower file system refused the write.
        case lowerFailed
        /// What is recorded about the file cannot be believed, and it holds local changes.
        case recordCorrupt
        case deadline
        case cancelled
        case shutdown
    }

    package let code: Code
    package let reason: Reason
    /// One line for the log and for `passhsm state`.
    package let cause: String
    /// How long the remote wants to be left alone before it is asked again; nil where it did not say.
    package let retryAfter: Duration?
    /// Of `.remoteFailed`: nobody was at work there, as far as can be told, whatever was asked for. See ``CircuitBreaker``.
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

    /// The request was ended by its deadline, its caller or the engine's end, on a thread that must not wait for any file:
    /// whoever is told answers first, and does the rest elsewhere.
    package var comesAtOnce: Bool { [.cancelled, .deadline, .shutdown].contains(reason) }
}
