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

    /// Raises RLIMIT_NOFILE for this process as far as it may (setrlimit(2)).
    package static func raiseDescriptorLimit() {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(resource, &limit)
    }
}
