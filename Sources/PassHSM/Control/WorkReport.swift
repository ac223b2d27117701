import HSMSystem

/// The progress of work on files: one line of a daemon's answer.
package struct WorkReport: Codable, Sendable, Equatable {
    /// A file that was left as it is, and why.
    package struct Failure: Codable, Sendable, Equatable {
        /// Below the mount point or lower directory.
        package var path: BytePath
        package var cause: String

        package init(path: BytePath, cause: String) {
            self.path = path
            self.cause = cause
        }
    }

    /// Count of files that were done.
    package var files = 0
    /// Count of bytes that were freed or filled.
    package var bytes = 0
    /// The total of the work; nil until it is counted.
    package var totalFiles: Int?
    package var totalBytes: Int?
    /// Files that were left since the last report.
    package var failures: [Failure] = []
    /// This is the last report.
    package var isDone = false

    package init() {}
}
