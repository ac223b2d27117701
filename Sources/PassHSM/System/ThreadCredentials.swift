import Glibc

/// The user, groups and capabilities of another thread (credentials(7), capabilities(7)), from /proc/TID/status.
///
/// The thread must be waiting for an answer, so that it cannot go on meanwhile. A thread about which nothing is known,
/// because it is in another PID namespace (0), has no group and no capability.
package struct ThreadCredentials: Sendable {
    /// CAP_FSETID: the thread's changes of a file keep setuid and setgid.
    package static let keepsSetIDs = 4
    /// CAP_SYS_ADMIN: allows attributes of the namespace `trusted`, among other things.
    package static let administrates = 21
    /// CAP_SYS_RESOURCE: allows the journaling of a file's content, among other things.
    package static let usesResources = 24

    /// The user that the thread's new files get, as the machine numbers it; nil when it is not known.
    package private(set) var user: uid_t?
    /// The group that the thread's new files get, and its supplementary groups, as the machine numbers them.
    package private(set) var groups: Set<gid_t> = []
    private var capabilities: UInt64 = 0

    package init(of thread: pid_t) {
        guard thread > 0, let text = SmallFile.text("/proc/\(thread)/status") else { return }
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let values = line[line.index(after: colon)...].split { $0 == "\t" || $0 == " " }
            switch line[..<colon] {
            case "Uid": user = values.dropFirst(3).first.flatMap { uid_t($0) }
            case "Gid": groups.formUnion(values.dropFirst(3).compactMap { gid_t($0) })
            case "Groups": groups.formUnion(values.compactMap { gid_t($0) })
            case "CapEff": capabilities = values.first.flatMap { UInt64($0, radix: 16) } ?? 0
            default: break
            }
        }
        // Capabilities in another user namespace do not count for the machine.
        if !Capabilities.isInFirstUserNamespace("\(thread)") { capabilities = 0 }
    }

    /// Whether the thread has the capability with this number in its effective set.
    package func has(_ capability: Int) -> Bool { capabilities >> UInt64(capability) & 1 == 1 }
}
