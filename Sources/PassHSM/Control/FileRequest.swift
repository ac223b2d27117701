import HSMSystem

/// Work on files that a client asks a daemon for. It is answered by ``WorkReport``s, about two a second, of which the last
/// one is marked as such, or by an error. It ends when the client goes away.
package struct FileRequest: Sendable, Equatable {
    package enum Action: String, Sendable, CaseIterable {
        /// Makes files offline.
        case release
        /// Fills files whole.
        case recall
        /// Forbids that files are released.
        case pin
        /// Allows it again.
        case unpin
    }

    package var action: Action
    /// Below the mount point, without a slash in front.
    package var paths: [BytePath]
    /// Also the files below those paths that are directories.
    package var isRecursive: Bool

    package init(_ action: Action, paths: [BytePath], isRecursive: Bool = false) {
        self.action = action
        self.paths = paths
        self.isRecursive = isRecursive
    }
}
