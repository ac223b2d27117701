import Glibc
import HSMSystem

/// Makes paths absolute and free of symlinks without ever touching a given mount: asking a mount whose daemon hangs
/// would hang the asker.
package struct PathResolver: Sendable {
    /// Paths that must not be touched, nor anything below them.
    private let untouchable: Set<BytePath>
    private let readLink: @Sendable (BytePath) -> BytePath?

    /// - Parameters:
    ///   - untouchable: canonical paths.
    ///   - readLink: returns the target of a symlink; nil for another file or a missing one.
    package init(
        untouchable: Set<BytePath>,
        readLink: @escaping @Sendable (BytePath) -> BytePath? = { path in try? path.readLink() }
    ) {
        self.untouchable = untouchable
        self.readLink = readLink
    }

    /// The canonical form of `path`; a relative path starts in `directory`. Names below an untouchable path are taken
    /// as they are.
    ///
    /// - Throws: ELOOP after 40 symlinks; the errors of getcwd(3).
    package func resolve(_ path: BytePath, from directory: BytePath? = nil) throws(Errno) -> BytePath {
        var pending = path.components
        if !path.isAbsolute {
            // The kernel gives the working directory without symlinks, but it may lie in a mount.
            let start: BytePath
            if let directory { start = directory } else { start = try BytePath.currentDirectory() }
            pending = start.components + pending
        }
        pending.reverse()
        var done: [[UInt8]] = []
        var links = 0
        while let name = pending.popLast() {
            if name == [UInt8(ascii: ".")] { continue }
            if name == [UInt8(ascii: "."), UInt8(ascii: ".")] {
                _ = done.popLast()
                continue
            }
            done.append(name)
            let here = BytePath(components: done)
            if untouchable.contains(where: { $0.contains(here) }) { continue }
            guard let target = readLink(here) else { continue }
            links += 1
            if links > 40 { throw Errno(rawValue: ELOOP) }
            done = target.isAbsolute ? [] : done.dropLast()
            pending += target.components.reversed()
        }
        return BytePath(components: done)
    }
}
