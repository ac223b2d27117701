/// The way by which a daemon learns of accesses.
package enum FrontEndKind: String, Codable, Sendable {
    case fuse
    /// Pre-content events.
    case fanotify
}
