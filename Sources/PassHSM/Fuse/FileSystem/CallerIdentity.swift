import CFuse
import CLinux
import Glibc

/// Lets the calling thread create files as the caller of a request would: with the caller's user, group and umask.
///
/// Threads that use it have an umask of their own (``prepareThread()``). The process keeps its capabilities over
/// setfsuid(2) (``prepareProcess()``). The kernel has checked permission already, so the caller's supplementary groups
/// need not be known.
enum CallerIdentity {
    /// To be called before the first thread that uses the identity starts.
    static func prepareProcess() { _ = passhsm_keep_capabilities() }

    static func prepareThread() { _ = passhsm_unshare_fs() }

    static func with<Result, Failure>(
        _ caller: fuse_ctx, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let mask = umask(caller.umask)
        let group = setfsgid(caller.gid)
        let user = setfsuid(caller.uid)
        defer {
            setfsuid(uid_t(bitPattern: user))
            setfsgid(gid_t(bitPattern: group))
            umask(mask)
        }
        return try body()
    }
}
