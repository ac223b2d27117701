/// How a daemon hears of accesses.
package enum FrontEndKind: String, Codable, Sendable {
    case fuse
    /// Pre-content events.
    case fanotify
}
