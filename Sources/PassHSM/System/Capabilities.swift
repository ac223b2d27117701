import CLinux
import Glibc

/// The capabilities (capabilities(7)) and resource limits of this process.
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

    /// Whether this process's capabilities hold for the whole machine (user_namespaces(7)). False where /proc does not
    /// tell.
    package static var isInFirstUserNamespace: Bool { isInFirstUserNamespace("self") }

    /// The same for the thread with this number.
    static func isInFirstUserNamespace(_ thread: String) -> Bool {
        var status = Glibc.stat()
        // PROC_USER_INIT_INO in the kernel's proc_ns.h, which is part of its interface.
        return fstatat(AT_FDCWD, "/proc/\(thread)/ns/user", &status, 0) == 0 && status.st_ino == 0xEFFF_FFFD
    }

    /// RLIMIT_NOFILE: how many descriptors this process may have now, and how far it may raise that.
    package static func descriptorLimit() -> (now: Int, max: Int) {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return (0, 0) }
        return (Int(clamping: limit.rlim_cur), Int(clamping: limit.rlim_max))
    }

    /// How many of `limit` descriptors are reserved for work on files. Descriptors for users' open files come from the
    /// rest.
    package static func descriptorReserve(limit: Int) -> Int { min(limit / 4, 8192) }

    /// Raises RLIMIT_NOFILE as far as this process may (setrlimit(2)).
    package static func raiseDescriptorLimit() { raise(__rlimit_resource_t(RLIMIT_NOFILE.rawValue)) }

    /// Raises RLIMIT_FSIZE as far as this process may, and removes it where it can. This process writes the files of
    /// users, who have limits of their own.
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

    /// Drops every capability that serving a mount does not need, and keeps the others across setfsuid(2). Applies to
    /// the calling thread and threads that it starts later, so it has to be called before there are other threads.
    package static func reduce() {
        _ = passhsm_keep_capabilities()
        _ = passhsm_keep_only(needed.reduce(UInt64(0)) { $0 | 1 << UInt64($1) })
    }

    /// ARCHITECTURE.md says what each one is for. CAP_SYS_RESOURCE (24) must not be among them: with it, a user's write
    /// would exceed quotas and use the space that is reserved for root.
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

/// Writes for users without using the space that a file system reserves for root. The file system grants that space by
/// the user (fsuid) of the thread, or of the one that opened or registered the file.
package enum OrdinaryUser {
    /// The user `nobody`. Files that `body` made would belong to it, so `body` must make none.
    private static let id: uid_t = 65_534
    private static let isNeeded = geteuid() == 0

    /// Calls `body` as an ordinary user who has this thread's capabilities. `body` must not make files.
    package static func write<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        guard isNeeded else { return try body() }
        let user = setfsuid(id)
        defer { setfsuid(uid_t(bitPattern: user)) }
        return try body()
    }
}
