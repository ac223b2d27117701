import Glibc
import HSMSystem

/// The log of a daemon in the background.
package enum DaemonLog {
    /// A larger log is moved to `.1` when a daemon starts.
    package static let rotationBytes = 10 << 20

    /// The log's path: /var/log/passhsm/LOWER.log for the machine's root, else $XDG_STATE_HOME/passhsm/LOWER.log (by
    /// default ~/.local/state). LOWER is the lower directory's path with `-` for `/`.
    ///
    /// - Parameters:
    ///   - user: nil for the machine's root.
    ///   - fallback: gives the folder if the environment names none: one that no other user can have made.
    package static func defaultPath(
        lower: BytePath, user: UInt32?, environment: (String) -> String?,
        fallback: () throws(Errno) -> BytePath
    ) throws(Errno) -> BytePath {
        // A file name has 255 bytes at most, and the end of a path tells more than its start.
        let name = Array(lower.components.joined(separator: Array("-".utf8)).suffix(240))
        let file = (name.isEmpty ? Array("root".utf8) : name) + Array(".log".utf8)
        let folder: String
        guard user != nil else { return BytePath(Array("/var/log/passhsm/".utf8) + file) }
        if let state = environment("XDG_STATE_HOME"), state.hasPrefix("/") {
            folder = state + "/passhsm"
        } else if let home = environment("HOME"), home.hasPrefix("/") {
            folder = home + "/.local/state/passhsm"
        } else {
            return BytePath(try fallback().bytes + [UInt8(ascii: "/")] + file)
        }
        return BytePath(Array("\(folder)/".utf8) + file)
    }

    /// Opens the log for appending, mode 0600; makes missing folders, mode 0700.
    ///
    /// A file must belong to this user and have one name only: in another user's folder, a link could lead anywhere.
    /// The rule is not for devices such as /dev/null.
    ///
    /// - Throws: EPERM or ELOOP for a file that is refused, and the errors of open(2).
    package static func open(_ path: BytePath) throws(Errno) -> Descriptor {
        let slash = path.bytes.lastIndex(of: UInt8(ascii: "/"))
        let name = Array(path.bytes[(slash.map { $0 + 1 } ?? 0)...])
        let components = path.components.dropLast()
        if path.isAbsolute {
            for count in components.indices {
                // If a folder cannot be used, opening the file fails.
                _ = try? BytePath(components: components[...count]).withCString { name throws(Errno) in
                    try check { mkdir(name, 0o700) }
                }
            }
        }
        let folder = try Descriptor.openTop(slash.map { Array(path.bytes[...$0]) } ?? [UInt8(ascii: ".")])
        if let status = try? folder.stat(name), status.st_mode & S_IFMT == S_IFREG, status.st_size > rotationBytes {
            try folder.rename(name, to: folder, name + Array(".1".utf8), replacing: true)
        }
        let flags = O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK
        let file = try BytePath(name).withCString { name throws(Errno) in
            try Descriptor.open(at: folder.raw, name, flags, mode: 0o600)
        }
        let status = try file.stat()
        switch status.st_mode & S_IFMT {
        case S_IFREG where status.st_uid == geteuid() && status.st_nlink == 1: break
        // Writers to a terminal must block, so this clears O_NONBLOCK.
        case S_IFCHR: _ = try check { fcntl(file.raw, F_SETFL, O_APPEND) }
        default: throw Errno(rawValue: EPERM)
        }
        return file
    }

    /// The last `lines` lines that were written to `log` from offset `start` on. Empty for a device.
    package static func tail(_ log: Descriptor, from start: Int, lines: Int = 5) -> [String] {
        guard let status = try? log.stat(), status.st_mode & S_IFMT == S_IFREG, status.st_size > start,
            let file = try? log.reopen(O_RDONLY)
        else { return [] }
        let size = status.st_size
        var bytes = [UInt8](repeating: 0, count: min(size - start, 16 << 10))
        let count = bytes.withUnsafeMutableBytes { buffer in
            (try? file.read(into: buffer, at: size - buffer.count)) ?? 0
        }
        return bytes[..<count].split(separator: UInt8(ascii: "\n")).suffix(lines).map { BytePath($0).description }
    }
}
