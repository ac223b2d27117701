import HSMControl
import HSMStore
import HSMSystem

/// What a daemon needs of a front end, whichever it is. Safe on every thread.
package protocol FrontEnd: FileActions {
    /// Mounts, unless the mount was taken over, and returns when requests are answered; a line that says what was got. To be
    /// called once.
    func start() throws(Errno) -> String
    /// Returns when the file system is unmounted, by whomever.
    func waitForUnmount()
    /// After ``waitForUnmount()``: returns when everything is on disk. To be called once.
    func finish()
    /// Fails every request that waits for a fill, now and for a few seconds.
    func drain()
    /// Ends the mount, whoever uses it. May be called again.
    func stop()
    /// What is recorded of a file (O_PATH).
    func state(of file: Descriptor) throws(Errno) -> StoredState
    /// What it has to say for `status`.
    func fill(_ report: inout StatusReport)
}
