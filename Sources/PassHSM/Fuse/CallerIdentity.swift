import CFuse
import CLinux
import Glibc

/// Lets the calling thread create files as the caller of a request would: with its user, group and umask.
///
/// Threads that use it have an umask of their own (``prepareThread()``), and the process keeps its capabilities over
/// setfsuid(2) (``prepareProcess()``): permission was checked by the kernel already, and supplementary groups need not be
/// known.
enum CallerIdentity {
    /// To be called before any thread is started that uses the identity.
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
