import HSMSystem

/// A client's request to a daemon: one line of JSON, an object with the name of the `command` and the values that it
/// takes.
package enum ControlRequest: Sendable, Equatable {
    /// Requests a ``StatusReport``.
    case status
    /// Fails every fill that waits now, and new ones for a few seconds, so that a plain unmount finds fewer users.
    case drain
    /// Ends the daemon; with `force` the mount is detached although it is in use.
    case stop(force: Bool)
    /// Requests the ``StateReport`` of one path below the mount point, without a slash in front.
    case state(BytePath)
    /// Requests work on files.
    case files(FileRequest)
}

extension ControlRequest: Codable {
    /// The commands' names in JSON, besides those of ``FileRequest/Action``.
    private enum Command: String { case status, drain, stop, state }

    private enum Key: String, CodingKey { case command, force, paths, recursive }

    /// - Throws: `RequestError` for an unknown command, and for a command without a value that it takes. Nothing is
    ///   done then.
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Key.self)
        let name = try values.decode(String.self, forKey: .command)
        let paths = try values.decodeIfPresent([BytePath].self, forKey: .paths)
        if let action = FileRequest.Action(rawValue: name) {
            guard let paths else { throw RequestError("\(name) takes paths") }
            let isRecursive = try values.decodeIfPresent(Bool.self, forKey: .recursive) ?? false
            self = .files(FileRequest(action, paths: paths, isRecursive: isRecursive))
            return
        }
        guard let command = Command(rawValue: name) else {
            throw RequestError("there is no command \(ArgumentText.readable(String(name.prefix(60))))")
        }
        switch command {
        case .status: self = .status
        case .drain: self = .drain
        case .stop: self = .stop(force: try values.decodeIfPresent(Bool.self, forKey: .force) ?? false)
        case .state:
            guard let path = paths?.first, paths?.count == 1 else { throw RequestError("state takes one path") }
            self = .state(path)
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Key.self)
        func encode(_ command: Command) throws { try values.encode(command.rawValue, forKey: .command) }
        switch self {
        case .status: try encode(.status)
        case .drain: try encode(.drain)
        case .stop(let force):
            try encode(.stop)
            try values.encode(force, forKey: .force)
        case .state(let path):
            try encode(.state)
            try values.encode([path], forKey: .paths)
        case .files(let work):
            try values.encode(work.action.rawValue, forKey: .command)
            try values.encode(work.paths, forKey: .paths)
            try values.encode(work.isRecursive, forKey: .recursive)
        }
    }
}

/// The reason why a line of JSON is no request; one line for people.
package struct RequestError: Error, Sendable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}
