import HSMSystem

/// A daemon's facts about itself: the answer to `status`.
package struct StatusReport: Codable, Sendable, Equatable {
    /// Whether the kernel alone reads complete files.
    package struct Passthrough: Codable, Sendable, Equatable {
        package var enabled: Bool
        /// The reason why it does not, or the condition that allows it.
        package var reason: String

        package init(enabled: Bool, reason: String) {
            self.enabled = enabled
            self.reason = reason
        }
    }

    /// Whether the remote tier answers, by the last requests.
    package struct Remote: Codable, Sendable, Equatable {
        /// The remote is known to be down: it is only probed, and asked for nothing else.
        package var isDown: Bool
        /// Seconds since the first request without an answer; nil after an answer.
        package var seconds: Int?
        /// The cause of the last request's failure.
        package var cause: String?

        package init(isDown: Bool, seconds: Int? = nil, cause: String? = nil) {
            self.isDown = isDown
            self.seconds = seconds
            self.cause = cause
        }
    }

    /// One of the last errors.
    package struct Failure: Codable, Sendable, Equatable {
        /// Relative to the mount; nil where it is unknown, or the error does not belong to one file.
        package var path: BytePath?
        package var cause: String
        /// Seconds since 1970.
        package var time: Int

        package init(path: BytePath? = nil, cause: String, time: Int) {
            self.path = path
            self.cause = cause
            self.time = time
        }
    }

    package var pid: Int32
    package var version: String
    package var frontEnd: FrontEndKind
    package var mountpoint: BytePath
    package var lower: BytePath
    /// The remote tier's location, without secrets.
    package var source: String
    package var remote: Remote
    package var passthrough: Passthrough
    /// The cache mode in force: `shared`, `exclusive` or `none`.
    package var cache: String
    /// The mount options in force that were set, by their names.
    package var options: [String: String]
    package var uptimeSeconds: Int
    /// The engine's counters.
    package var counters: NamedCounts
    /// Counts of requests by FUSE opcode, or of events by kind.
    package var requests: NamedCounts
    /// Count of requests that wait for the remote now.
    package var waiting: Int
    package var knownInodes: Int
    package var openHandles: Int
    package var openDescriptors: Int
    package var backingIDs: Int
    /// Count of incomplete files that the daemon knows.
    package var incompleteFiles: Int
    /// Resident memory, in bytes.
    package var memoryBytes: Int
    /// The last few errors, oldest first.
    package var errors: [Failure]
    /// Messages about the lower directory as a whole.
    package var warnings: [String]

    /// Fills in the facts about this process from /proc; everything else that is not given is empty.
    package init(frontEnd: FrontEndKind, mountpoint: BytePath, lower: BytePath, source: String, cache: String) {
        pid = OwnProcess.id
        version = ProgramVersion.text
        self.frontEnd = frontEnd
        self.mountpoint = mountpoint
        self.lower = lower
        self.source = source
        remote = Remote(isDown: false)
        passthrough = Passthrough(enabled: false, reason: "")
        self.cache = cache
        options = [:]
        uptimeSeconds = 0
        counters = NamedCounts()
        requests = NamedCounts()
        waiting = 0
        knownInodes = 0
        openHandles = 0
        openDescriptors = OwnProcess.openDescriptors
        backingIDs = 0
        incompleteFiles = 0
        memoryBytes = OwnProcess.residentBytes
        errors = []
        warnings = []
    }
}
