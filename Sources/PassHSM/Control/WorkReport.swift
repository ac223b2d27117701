import HSMSystem

/// How far work on files has come: one line of a daemon's answer.
package struct WorkReport: Codable, Sendable, Equatable {
    /// A file that is left as it was.
    package struct Failure: Codable, Sendable, Equatable {
        /// Below the mount point or lower directory.
        package var path: BytePath
        package var cause: String

        package init(path: BytePath, cause: String) {
            self.path = path
            self.cause = cause
        }
    }

    /// Files that were done.
    package var files = 0
    /// Bytes that were freed or filled.
    package var bytes = 0
    /// What there is to do in all; nil until it is counted.
    package var totalFiles: Int?
    package var totalBytes: Int?
    /// Since the last report.
    package var failures: [Failure] = []
    /// Nothing comes after this.
    package var isDone = false

    package init() {}
}
