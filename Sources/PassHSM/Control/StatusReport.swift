import HSMSystem

/// What a daemon says about itself: the answer to `status`.
package struct StatusReport: Codable, Sendable, Equatable {
    /// Whether complete files are read by the kernel alone.
    package struct Passthrough: Codable, Sendable, Equatable {
        package var enabled: Bool
        /// Why it is not, or what it rests on.
        package var reason: String

        package init(enabled: Bool, reason: String) {
            self.enabled = enabled
            self.reason = reason
        }
    }

    /// Whether the remote tier answers, as the last requests found.
    package struct Remote: Codable, Sendable, Equatable {
        /// It is known to be down: it is probed, and asked for nothing else.
        package var isDown: Bool
        /// For how long there has been no answer; nil after one.
        package var seconds: Int?
        /// Why the last request came to nothing.
        package var cause: String?

        package init(isDown: Bool, seconds: Int? = nil, cause: String? = nil) {
            self.isDown = isDown
            self.seconds = seconds
            self.cause = cause
        }
    }

    /// One of the last errors.
    package struct Failure: Codable, Sendable, Equatable {
        /// Relative to the mount; nil where it is unknown or the error is not one file's.
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
    /// The mount options in force, by their names, but those that nobody set.
    package var options: [String: String]
    package var uptimeSeconds: Int
    /// The engine's counters.
    package var counters: NamedCounts
    /// Requests by FUSE opcode, or events by kind.
    package var requests: NamedCounts
    /// Requests that wait for the remote now.
    package var waiting: Int
    package var knownInodes: Int
    package var openHandles: Int
    package var openDescriptors: Int
    package var backingIDs: Int
    /// Files that the daemon knows and that are not complete.
    package var incompleteFiles: Int
    /// Resident memory.
    package var memoryBytes: Int
    /// The last few, oldest first.
    package var errors: [Failure]
    /// What is wrong with the lower directory as a whole.
    package var warnings: [String]

    /// The daemon's own process is described from /proc; everything that is not given is empty.
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
