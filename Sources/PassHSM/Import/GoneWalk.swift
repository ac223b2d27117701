import Glibc
import HSMSystem

/// Goes through everything below one directory of the lower tree, each directory after what is in it.
struct GoneWalk {
    enum Step {
        /// Something other than a directory, in the current directory.
        case name([UInt8], path: [UInt8])
        /// A directory in the current one that was gone through; `modified` is its time before, which a removal in it
        /// has moved if it was touched.
        case left([UInt8], path: [UInt8], wasTouched: Bool, modified: timespec)
    }

    private struct Level {
        let name: [UInt8]
        let modified: timespec
        var cursor = DirectoryCursor()
        var isTouched = false
    }

    private var stack: DirectoryStack
    private var levels: [Level]
    private var path: [UInt8]

    init(top: Descriptor, path: [UInt8]) throws(Errno) {
        stack = try DirectoryStack(top: top)
        levels = [Level(name: [], modified: try top.stat().st_mtim)]
        self.path = path
    }

    var current: Descriptor { stack.current }
    var isTopTouched: Bool { levels[0].isTouched }
    var topModified: timespec { levels[0].modified }

    /// A name in the current directory was removed.
    mutating func didRemove() { levels[levels.count - 1].isTouched = true }

    /// The next step; nil when everything below the top was gone through.
    mutating func next() throws(Errno) -> Step? {
        while true {
            if let entry = try levels[levels.count - 1].cursor.next(in: stack.current) {
                let status = try stack.current.stat(entry.name)
                if status.st_mode & S_IFMT != S_IFDIR { return .name(entry.name, path: path + [0x2f] + entry.name) }
                let directory = try Descriptor.openDirectory(at: stack.current, entry.name)
                if let closed = try stack.push(directory, name: entry.name) { levels[closed].cursor.suspend() }
                levels.append(Level(name: entry.name, modified: status.st_mtim))
                path += [0x2f] + entry.name
                continue
            }
            guard levels.count > 1 else { return nil }
            try stack.pop()
            let left = levels.removeLast()
            let whole = path
            path.removeLast(left.name.count + 1)
            return .left(left.name, path: whole, wasTouched: left.isTouched, modified: left.modified)
        }
    }
}
