import HSMSystem

/// A daemon's actions for requests. The server calls them on its threads, several at once.
package struct ControlHandlers: Sendable {
    package var status: @Sendable () -> StatusReport
    /// Fails every fill that waits now, and for a few seconds every new one. Returns when the waiters are answered.
    package var drain: @Sendable () -> Void
    /// Starts the end of the daemon and returns; with `force` the mount is detached although it is in use. Called after
    /// the client has its reply.
    package var stop: @Sendable (_ force: Bool) -> Void
    /// Works on files until the work is done, and sends an answer now and then. If the client does not take an answer
    /// (false), the work ends.
    package var files: @Sendable (FileRequest, _ answer: (ControlReply) -> Bool) -> Void
    /// Reports on the file at a path below the mount point.
    package var state: @Sendable (BytePath) throws(Errno) -> StateReport

    package init(
        status: @escaping @Sendable () -> StatusReport, drain: @escaping @Sendable () -> Void,
        stop: @escaping @Sendable (_ force: Bool) -> Void,
        files: @escaping @Sendable (FileRequest, _ answer: (ControlReply) -> Bool) -> Void,
        state: @escaping @Sendable (BytePath) throws(Errno) -> StateReport
    ) {
        self.status = status
        self.drain = drain
        self.stop = stop
        self.files = files
        self.state = state
    }
}
