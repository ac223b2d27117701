import CLinux
import Glibc

/// What this process may do (capabilities(7)), and how much.
package struct Capabilities: Sendable {
    private let bits: UInt64

    /// The effective capabilities of the calling thread now (capget(2)).
    package static func effective() -> Capabilities {
        var bits: UInt64 = 0
        return passhsm_effective_capabilities(&bits) == 0 ? Capabilities(bits: bits) : Capabilities(bits: 0)
    }

    /// CAP_DAC_READ_SEARCH: open_by_handle_at(2).
    package var mayOpenHandles: Bool { bits >> 2 & 1 == 1 }
    /// CAP_SYS_ADMIN: mount(2), kernel passthrough, fanotify, attributes of the namespace `trusted`.
    package var mayAdministrate: Bool { bits >> 21 & 1 == 1 }

    /// Whether capabilities are those of the machine (user_namespaces(7)); false where /proc does not tell.
    package static var isInFirstUserNamespace: Bool { isInFirstUserNamespace("self") }

    /// ``isInFirstUserNamespace`` for another thread, of this number.
    static func isInFirstUserNamespace(_ thread: String) -> Bool {
        var status = Glibc.stat()
        // PROC_USER_INIT_INO of the kernel's proc_ns.h, part of its interface.
        return fstatat(AT_FDCWD, "/proc/\(thread)/ns/user", &status, 0) == 0 && status.st_ino == 0xEFFF_FFFD
    }

    /// RLIMIT_NOFILE: how many descriptors this process may have now, and may raise that to.
    package static func descriptorLimit() -> (now: Int, most: Int) {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return (0, 0) }
        return (Int(clamping: limit.rlim_cur), Int(clamping: limit.rlim_max))
    }

    /// How many of `limit` descriptors are kept for the work on files; those of users' open files come from the others.
    package static func descriptorReserve(limit: Int) -> Int { min(limit / 4, 8192) }

    /// Raises RLIMIT_NOFILE for this process as far as it may (setrlimit(2)).
    package static func raiseDescriptorLimit() { raise(__rlimit_resource_t(RLIMIT_NOFILE.rawValue)) }

    /// Raises RLIMIT_FSIZE as far as this process may, to no limit where it can: it is for the files of users, who have their
    /// own limits.
    package static func raiseFileSizeLimit() {
        let resource = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
        var none = rlimit(rlim_cur: rlim_t.max, rlim_max: rlim_t.max)
        if setrlimit(resource, &none) != 0 { raise(resource) }
    }

    private static func raise(_ resource: __rlimit_resource_t) {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(resource, &limit)
    }

    /// Gives up every capability that serving a mount does not need, and keeps the others over setfsuid(2). For the calling
    /// thread and those that it starts: to be called before there are others.
    package static func reduce() {
        _ = passhsm_keep_capabilities()
        _ = passhsm_keep_only(needed.reduce(UInt64(0)) { $0 | 1 << UInt64($1) })
    }

    /// What each is for is ARCHITECTURE.md's to say. Above all not CAP_SYS_RESOURCE (24), by which a user's write would go past
    /// quotas and into the space that is reserved for root.
    private static let needed = [
        0,  // CAP_CHOWN
        1,  // CAP_DAC_OVERRIDE
        2,  // CAP_DAC_READ_SEARCH
        3,  // CAP_FOWNER
        4,  // CAP_FSETID
        6,  // CAP_SETGID
        7,  // CAP_SETUID
        9,  // CAP_LINUX_IMMUTABLE
        19,  // CAP_SYS_PTRACE
        21,  // CAP_SYS_ADMIN
        27,  // CAP_MKNOD
        28,  // CAP_LEASE
        31,  // CAP_SETFCAP
    ]
}

/// Writing for users: not into the space that a file system reserves for root, which it knows by the user (fsuid) of the
/// thread, or of the one that opened or registered the file.
package enum OrdinaryUser {
    /// Nobody's; owns nothing that is written to, since the files that are made in `body` would be its own.
    private static let id: uid_t = 65_534
    private static let isNeeded = geteuid() == 0

    /// Calls `body`, which makes no file, as an ordinary user with this thread's capabilities.
    package static func write<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        guard isNeeded else { return try body() }
        let user = setfsuid(id)
        defer { setfsuid(uid_t(bitPattern: user)) }
        return try body()
    }
}
