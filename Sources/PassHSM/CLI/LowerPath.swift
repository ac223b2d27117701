import Glibc
import HSMControl
import HSMStore
import HSMSystem

/// A user's path to a file of a lower directory: the directory, and below it the path that mounts show. While nothing
/// is mounted, the file itself lies elsewhere.
struct LowerPath {
    /// The lower directory.
    let lower: BytePath
    /// Without a slash in front; empty for the top.
    let below: BytePath

    /// The file's own path, for access without a mount.
    var file: BytePath {
        let (tree, top) = (lower.appending(Store.treePath), below.bytes.isEmpty ? lower : lower.appending(below))
        guard (try? tree.linkStat()) != nil else { return top }
        let inside = below.bytes.isEmpty ? tree : tree.appending(below)
        // Local files that were made while nothing was mounted lie at the top.
        return (try? inside.linkStat()) == nil && (try? top.linkStat()) != nil ? top : inside
    }

    /// The top of a lower directory.
    init(lower: BytePath) { (self.lower, below) = (lower, BytePath("")) }

    /// Nil when no directory at or above `path`, which is canonical, has a store in it. A path through the store's
    /// folder into the tree means the same file as its path in a mount.
    init?(_ path: BytePath) {
        let components = path.components
        for count in (0...components.count).reversed() {
            let candidate = BytePath(components: components.prefix(count))
            guard let status = try? candidate.appending(Store.folder).linkStat(), status.st_mode & S_IFMT == S_IFDIR
            else { continue }
            var rest = components.dropFirst(count)
            let tree = BytePath(Store.treePath).components
            if rest.starts(with: tree) { rest = rest.dropFirst(tree.count) }
            lower = candidate
            below = BytePath(BytePath(components: rest).bytes.dropFirst())
            return
        }
        return nil
    }

    /// Makes `path` absolute and resolves its symlinks except the last component, because that names the file which is
    /// meant. Neither the file nor the directories above it need to exist.
    static func canonical(_ path: BytePath, _ registry: RuntimeDirectory) throws(Errno) -> BytePath {
        func canonical(_ path: BytePath) throws(Errno) -> BytePath {
            do throws(Errno) { return try path.real() } catch {
                guard error.rawValue == ENOENT else { throw error }
                return try registry.canonical(path)
            }
        }
        let last = path.components.last ?? []
        if last.isEmpty || path.bytes.last == UInt8(ascii: "/") || [[0x2e], [0x2e, 0x2e]].contains(last) {
            return try canonical(path)
        }
        let folder = path.bytes.dropLast(last.count)
        return try canonical(folder.isEmpty ? BytePath(".") : BytePath(folder)).appending(BytePath(last))
    }
}
