import Glibc

/// What another thread may do (credentials(7), capabilities(7)), from /proc/TID/status.
///
/// To be asked of a thread that cannot go on meanwhile, because it waits for an answer. One of which nothing is known (it is
/// of another PID namespace: 0) has no group and no capability.
package struct ThreadCredentials: Sendable {
    /// CAP_FSETID: setuid and setgid outlive changes of a file.
    package static let keepsSetIDs = 4
    /// CAP_SYS_ADMIN: among others, attributes of the namespace `trusted`.
    package static let administrates = 21
    /// CAP_SYS_RESOURCE: among others, the journaling of a file's content.
    package static let usesResources = 24

    /// The user that its files get, as the machine numbers it; nil when nothing is known.
    package private(set) var user: uid_t?
    /// The group that its files get, and the supplementary ones; as the machine numbers them.
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
        // Those of another user namespace are not those of the machine.
        if !Capabilities.isInFirstUserNamespace("\(thread)") { capabilities = 0 }
    }

    package func has(_ capability: Int) -> Bool { capabilities >> UInt64(capability) & 1 == 1 }
}
