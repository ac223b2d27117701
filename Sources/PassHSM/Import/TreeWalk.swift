import Glibc
import HSMSystem

/// Walks through everything below the top of the lower tree, each directory after its contents. Used by one thread.
struct TreeWalk {
    enum Step {
        /// Something other than a directory, in the current directory.
        case name([UInt8], path: [UInt8])
        /// A directory in the current one, after the walk through it. `modified` is its time before; if it was touched,
        /// a removal has moved its time.
        case left([UInt8], path: [UInt8], wasTouched: Bool, modified: timespec)
        /// A directory that cannot be entered, or a name that cannot be looked at.
        case failed(path: [UInt8], Errno)
    }

    private struct Level {
        let name: [UInt8]
        let modified: timespec
        var cursor = DirectoryCursor()
        var isTouched = false
    }

    private var stack: DirectoryStack
    private var levels: [Level]
    private var path: [UInt8] = []
    private let leavesOut: (_ path: [UInt8], _ parent: [UInt8], _ isDirectory: Bool) -> Bool

    /// - Parameter leavesOut: returns whether to pass over a name, or a directory with everything in it.
    init(
        top: Descriptor,
        leavingOut leavesOut: @escaping (_ path: [UInt8], _ parent: [UInt8], _ isDirectory: Bool) -> Bool = { _, _, _ in
            false
        }
    ) throws(Errno) {
        stack = try DirectoryStack(top: top)
        levels = [Level(name: [], modified: try top.stat().st_mtim)]
        self.leavesOut = leavesOut
    }

    var current: Descriptor { stack.current }
    var isTopTouched: Bool { levels[0].isTouched }
    var topModified: timespec { levels[0].modified }

    /// Says that a name in the current directory was removed.
    mutating func didRemove() { levels[levels.count - 1].isTouched = true }

    /// The next step; nil after everything below the top.
    ///
    /// - Throws: when a directory cannot be listed to its end, or was moved meanwhile.
    mutating func next() throws(Errno) -> Step? {
        while true {
            if let entry = try levels[levels.count - 1].cursor.next(in: stack.current) {
                let whole = path.isEmpty ? entry.name : path + [0x2f] + entry.name
                do throws(Errno) { if let step = try enter(entry, whole) { return step } } catch {
                    if error.rawValue != ENOENT { return .failed(path: whole, error) }
                }
                continue
            }
            guard levels.count > 1 else { return nil }
            try stack.pop()
            let left = levels.removeLast()
            let whole = path
            path.removeLast(levels.count == 1 ? path.count : left.name.count + 1)
            return .left(left.name, path: whole, wasTouched: left.isTouched, modified: left.modified)
        }
    }

    /// Enters a directory; for anything else it returns a step.
    private mutating func enter(_ entry: DirectoryCursor.Entry, _ whole: [UInt8]) throws(Errno) -> Step? {
        var isDirectory = Int(entry.type) == DT_DIR
        if Int(entry.type) == DT_UNKNOWN {
            isDirectory = try stack.current.stat(entry.name).st_mode & S_IFMT == S_IFDIR
        }
        if leavesOut(whole, path, isDirectory) { return nil }
        guard isDirectory else { return .name(entry.name, path: whole) }
        let directory = try Descriptor.openDirectory(at: stack.current, entry.name)
        let modified = try directory.stat().st_mtim
        if let closed = try stack.push(directory, name: entry.name) { levels[closed].cursor.suspend() }
        levels.append(Level(name: entry.name, modified: modified))
        path = whole
        return nil
    }
}
