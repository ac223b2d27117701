import Glibc

/// Visits files of a tree that are named by paths, and all regular files below paths that are directories. Symlinks are
/// never followed. Not thread-safe.
package struct FileWalk {
    package struct Item: Sendable {
        /// The path below the top, joined by `/`; empty for the top itself.
        package let path: [UInt8]
        /// O_PATH on the file, or the error of opening it.
        package let file: Result<Descriptor, Errno>
    }

    private let top: Descriptor
    /// Device and inode of the entry that is left out; nil when there is none.
    private let hidden: (device: dev_t, inode: ino_t)?
    private let isRecursive: Bool
    /// The paths that are left, in reverse order.
    private var paths: [[UInt8]]
    private var stack: DirectoryStack?
    private var cursors: [DirectoryCursor] = []
    /// The path of the directory at the bottom of the stack.
    private var start: [UInt8] = []

    /// - Parameters:
    ///   - top: O_PATH on the directory that the paths are below.
    ///   - hidden: a name in it. The inode that has this name now is left out with everything below it, whichever path
    ///     leads there.
    package init(top: Descriptor, paths: [[UInt8]], isRecursive: Bool, hidden: String) {
        self.top = top
        self.hidden = (try? top.stat(Array(hidden.utf8))).map { ($0.st_dev, $0.st_ino) }
        self.isRecursive = isRecursive
        self.paths = paths.reversed()
    }

    /// The next file. A file that cannot be opened is an item too. Nil at the end.
    package mutating func next() -> Item? {
        while true {
            if let item = nextBelow() { return item }
            guard let path = paths.popLast() else { return nil }
            do throws(Errno) {
                let place = try find(path)
                guard isRecursive, try place.stat().st_mode & S_IFMT == S_IFDIR else {
                    return Item(path: path, file: .success(place))
                }
                stack = try DirectoryStack(top: Descriptor.openDirectory(at: place, [UInt8(ascii: ".")]))
                cursors = [DirectoryCursor()]
                start = path
            } catch {
                return Item(path: path, file: .failure(error))
            }
        }
    }

    /// Component by component, so that no symlink is followed.
    private func find(_ path: [UInt8]) throws(Errno) -> Descriptor {
        let names = path.split(separator: 0x2f).map(Array.init)
        guard let last = names.last else { return top }
        if names.contains([0x2e, 0x2e]) { throw Errno(rawValue: EINVAL) }
        var directory = top
        for name in names.dropLast() {
            directory = try Descriptor.openPlaceOfDirectory(at: directory, name)
            if isHidden(try directory.stat()) { throw Errno(rawValue: ENOENT) }
        }
        let place = try Descriptor.openPlace(at: directory, last)
        if isHidden(try place.stat()) { throw Errno(rawValue: ENOENT) }
        return place
    }

    /// Compares the inode, because the name means nothing after `./` or a rename.
    private func isHidden(_ status: stat) -> Bool {
        hidden.map { $0.inode == status.st_ino && $0.device == status.st_dev } ?? false
    }

    private func path(of name: [UInt8]) -> [UInt8] {
        [start, stack?.path ?? [], name].filter { !$0.isEmpty }.joined(separator: [0x2f]).map { $0 }
    }

    /// The next file below the current directory of the walk; nil when there is none.
    private mutating func nextBelow() -> Item? {
        while let current = stack?.current {
            var name: [UInt8] = []
            do throws(Errno) {
                guard let entry = try cursors[cursors.count - 1].next(in: current) else {
                    cursors.removeLast()
                    if cursors.isEmpty { stack = nil } else { try stack?.pop() }
                    continue
                }
                name = entry.name
                let place = try Descriptor.openPlace(at: current, name)
                let status = try place.stat()
                if isHidden(status) { continue }
                let type = status.st_mode & S_IFMT
                if type == S_IFREG { return Item(path: path(of: name), file: .success(place)) }
                guard type == S_IFDIR else { continue }
                let directory = try Descriptor.openDirectory(at: current, name)
                if let closed = try stack?.push(directory, name: name) { cursors[closed].suspend() }
                cursors.append(DirectoryCursor())
            } catch {
                // Removed meanwhile.
                if error.rawValue == ENOENT && !name.isEmpty { continue }
                let item = Item(path: path(of: name), file: .failure(error))
                // When the directory itself cannot be read, or was moved away, nothing more is found below it.
                if name.isEmpty { stack = nil }
                return item
            }
        }
        return nil
    }
}
