import HSMSystem

/// What a daemon does when it is asked. The server calls it on its threads, several at once.
package struct ControlHandlers: Sendable {
    package var status: @Sendable () -> StatusReport
    /// Fails every fill that waits now, and for a few seconds those that are asked for; returns when the waiters are
    /// answered.
    package var drain: @Sendable () -> Void
    /// Starts the end of the daemon and returns; with `force` the mount is detached although it is used. Called after
    /// the client has its reply.
    package var stop: @Sendable (_ force: Bool) -> Void
    /// Works on files until it is done, and answers now and then. An answer that is not taken (false) ends the work.
    package var files: @Sendable (FileRequest, _ answer: (ControlReply) -> Bool) -> Void
    /// What is known of the file at a path below the mount point.
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
