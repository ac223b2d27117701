import Glibc
import HSMSystem

/// Where a daemon in the background writes its log.
package enum DaemonLog {
    /// A larger log is moved to `.1` when a daemon starts.
    package static let rotationBytes = 10 << 20

    /// /var/log/passhsm/LOWER.log for the machine's root, else $XDG_STATE_HOME/passhsm/LOWER.log (by default ~/.local/state), where
    /// LOWER is the lower directory's path with `-` for `/`.
    ///
    /// - Parameter user: nil for the machine's root.
    package static func defaultPath(lower: BytePath, user: UInt32?, environment: (String) -> String?) -> BytePath {
        // A file name has 255 bytes at most; the end of a path says more than its start.
        let name = Array(lower.components.joined(separator: Array("-".utf8)).suffix(240))
        let file = (name.isEmpty ? Array("root".utf8) : name) + Array(".log".utf8)
        let folder: String
        guard let user else { return BytePath(Array("/var/log/passhsm/".utf8) + file) }
        if let state = environment("XDG_STATE_HOME"), state.hasPrefix("/") {
            folder = state + "/passhsm"
        } else if let home = environment("HOME"), home.hasPrefix("/") {
            folder = home + "/.local/state/passhsm"
        } else {
            folder = "/tmp/passhsm-\(user)"
        }
        return BytePath(Array("\(folder)/".utf8) + file)
    }

    /// Opens the log to append to, mode 0600; makes the folders that are missing, mode 0700.
    package static func open(_ path: BytePath) throws(Errno) -> Descriptor {
        let folder = path.components.dropLast()
        if path.isAbsolute {
            for count in folder.indices {
                // Whatever is wrong with a folder shows when the file is opened.
                _ = try? BytePath(components: folder[...count]).withCString { name throws(Errno) in
                    try check { mkdir(name, 0o700) }
                }
            }
        }
        if let status = try? path.stat(), status.st_mode & S_IFMT == S_IFREG, status.st_size > rotationBytes {
            try path.withCString { old throws(Errno) in
                try BytePath(path.bytes + Array(".1".utf8)).withCString { new throws(Errno) in
                    _ = try check { rename(old, new) }
                }
            }
        }
        return try path.withCString { name throws(Errno) in
            try Descriptor.open(name, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, mode: 0o600)
        }
    }

    /// The last `lines` lines of what was written to the log at `path` from `start` on.
    package static func tail(_ path: BytePath, from start: Int, lines: Int = 5) -> [String] {
        guard let file = try? path.withCString({ name throws(Errno) in try Descriptor.open(name, O_RDONLY) }),
            let size = try? file.stat().st_size, size > start
        else { return [] }
        var bytes = [UInt8](repeating: 0, count: min(size - start, 16 << 10))
        let count = bytes.withUnsafeMutableBytes { buffer in
            (try? file.read(into: buffer, at: size - buffer.count)) ?? 0
        }
        return bytes[..<count].split(separator: UInt8(ascii: "\n")).suffix(lines).map { BytePath($0).description }
    }
}
