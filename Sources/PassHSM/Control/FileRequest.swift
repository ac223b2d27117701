import HSMSystem

/// Work on files that a client requests from a daemon. The daemon answers with ``WorkReport``s, about two a second, of
/// which the last is marked as such, or with an error. The work ends when the client goes away.
package struct FileRequest: Sendable, Equatable {
    package enum Action: String, Sendable, CaseIterable {
        /// Makes files offline.
        case release
        /// Fills files whole.
        case recall
        /// Forbids a later release of the files.
        case pin
        /// Allows releases again.
        case unpin
    }

    package var action: Action
    /// Paths below the mount point, without a slash in front.
    package var paths: [BytePath]
    /// Includes the files below paths that are directories.
    package var isRecursive: Bool

    package init(_ action: Action, paths: [BytePath], isRecursive: Bool = false) {
        self.action = action
        self.paths = paths
        self.isRecursive = isRecursive
    }
}
