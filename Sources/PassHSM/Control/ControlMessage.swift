import FoundationEssentials
import HSMSystem

/// The version of the program, as `--version` and `status` show it.
package enum ProgramVersion {
    package static let text = "0.1.0"
}

/// What a client asks a daemon: one line of JSON.
package struct ControlRequest: Codable, Sendable, Equatable {
    package enum Command: String, Codable, Sendable {
        /// Asks for a ``StatusReport``.
        case status
        /// Fails every fill that waits now, and new ones for a few seconds, so that a plain unmount finds fewer users.
        case drain
        /// Ends the daemon.
        case stop
        /// Work on files, answered by ``WorkReport``s, about two a second; the last one is marked as such. It ends when the
        /// client goes away.
        case release, recall, pin, unpin
        /// Asks for the ``StateReport`` of one path.
        case state
    }

    package var command: Command
    /// With ``Command/stop``: detach the mount although it is used.
    package var force: Bool?
    /// With work on files, and with ``Command/state``: paths below the mount point, without a slash in front.
    package var paths: [BytePath]?
    /// With work on files: also those below the paths that are directories.
    package var recursive: Bool?

    package init(
        _ command: Command, force: Bool? = nil, paths: [BytePath]? = nil, recursive: Bool? = nil
    ) {
        self.command = command
        self.force = force
        self.paths = paths
        self.recursive = recursive
    }
}

/// What a daemon answers: one line of JSON.
package struct ControlReply: Codable, Sendable {
    /// Set when the request failed: one line for people.
    package var error: String?
    /// The answer to `status`.
    package var status: StatusReport?
    /// How far work on files has come.
    package var work: WorkReport?
    /// The answer to `state`.
    package var state: StateReport?

    package init(
        error: String? = nil, status: StatusReport? = nil, work: WorkReport? = nil, state: StateReport? = nil
    ) {
        self.error = error
        self.status = status
        self.work = work
        self.state = state
    }
}

/// The one JSON form of everything that is shown to programs and sent over the socket: keys sorted, slashes plain.
package enum ControlJSON {
    /// One line without a newline; with `pretty`, several.
    package static func encode(_ value: some Encodable, pretty: Bool = false) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        return Array(try encoder.encode(value))
    }

    package static func decode<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8]) throws -> Value {
        try JSONDecoder().decode(type, from: Data(bytes))
    }
}
