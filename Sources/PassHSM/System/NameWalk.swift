/// Visits the names below a directory. The caller looks at each name, and enters the directories that it wants.
///
/// A directory's own name comes before the names in it. Symlinks are never followed. Not thread-safe.
package struct NameWalk {
    package enum Step {
        /// A name in ``current``.
        case name(DirectoryCursor.Entry)
        /// ``current`` cannot be listed, or not to its end. The next step leaves it.
        case unlisted(Errno)
    }

    private let hidden: [UInt8]
    private var stack: DirectoryStack
    /// One cursor for the top and one for each directory that was entered.
    private var cursors = [DirectoryCursor()]
    private var isUnlisted = false

    /// - Parameters:
    ///   - top: the directory to start at; O_PATH is enough.
    ///   - hidden: a name at the top that is left out.
    package init(top: Descriptor, hiding hidden: String) throws(Errno) {
        self.hidden = Array(hidden.utf8)
        stack = try DirectoryStack(top: Descriptor.openDirectory(at: top, [0x2e]))
    }

    /// The directory of the last step.
    package var current: Descriptor { stack.current }

    /// The path of ``current`` below the top: bytes, joined by `/`; empty for the top.
    package var path: [UInt8] { stack.path }

    /// The path of a name in ``current``.
    package func path(of name: [UInt8]) -> [UInt8] { stack.depth == 0 ? name : stack.path + [0x2f] + name }

    /// The next step; nil at the end.
    ///
    /// - Throws: ESTALE when a directory was moved meanwhile, so that there is no way back from it.
    package mutating func next() throws(Errno) -> Step? {
        while true {
            var entry: DirectoryCursor.Entry?
            if !isUnlisted {
                do throws(Errno) { entry = try cursors[cursors.count - 1].next(in: stack.current) } catch {
                    isUnlisted = true
                    return .unlisted(error)
                }
            }
            if let entry {
                if stack.depth == 0 && entry.name == hidden { continue }
                return .name(entry)
            }
            isUnlisted = false
            guard stack.depth > 0 else { return nil }
            try stack.pop()
            cursors.removeLast()
        }
    }

    /// Enters `directory`, which is `name` in ``current``. The next step is in it.
    package mutating func enter(_ directory: Descriptor, _ name: [UInt8]) throws(Errno) {
        if let closed = try stack.push(directory, name: name) { cursors[closed].suspend() }
        cursors.append(DirectoryCursor())
    }
}
