import HSMControl
import HSMStore
import HSMSystem

/// The part of a front end that a daemon uses, the same for every kind. Safe on every thread.
package protocol FrontEnd: FileActions {
    /// Mounts, unless the mount was taken over, and returns when requests are answered. The returned line describes the
    /// mount for the user. To be called once.
    func start() throws(Errno) -> String
    /// Returns when the file system is unmounted, no matter how.
    func waitForUnmount()
    /// After ``waitForUnmount()``: returns when everything is on disk. To be called once.
    func finish()
    /// Fails every request that waits for a fill, now and for a few seconds.
    func drain()
    /// Ends the mount even while it is in use. May be called again.
    func stop()
    /// Returns the recorded state of a file (O_PATH).
    func state(of file: Descriptor) throws(Errno) -> StoredState
    /// Adds the front end's own figures to the answer to `status`.
    func fill(_ report: inout StatusReport)
}
