import CLinux
import Glibc
import HSMFuseDoor

/// Lets the calling thread create files as the caller of a request would: with the caller's user, group and umask.
///
/// Threads that use it have an umask of their own (``prepareThread()``). The process keeps its capabilities over
/// setfsuid(2) (``prepareProcess()``). The kernel has checked permission already, so the caller's supplementary groups
/// need not be known.
enum CallerIdentity {
    /// To be called before the first thread that uses the identity starts.
    static func prepareProcess() { _ = passhsm_keep_capabilities() }

    static func prepareThread() { _ = passhsm_unshare_fs() }

    /// - Parameter new: the caller's umask; it counts where the directory has no default ACL.
    static func with<Result, Failure>(
        _ caller: Caller, umask new: mode_t, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let mask = umask(new)
        let group = setfsgid(caller.group)
        let user = setfsuid(caller.user)
        defer {
            setfsuid(uid_t(bitPattern: user))
            setfsgid(gid_t(bitPattern: group))
            umask(mask)
        }
        return try body()
    }
}
