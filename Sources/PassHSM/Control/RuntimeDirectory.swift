import Glibc
import HSMSystem

/// The registry of running daemons: one folder each, named by its process id, with `info.json` and `control.sock`.
///
/// Nothing here touches a mount: a daemon that hangs must not hang a process that asks about it. A place that other
/// users can enter, or that belongs to one, is passed over: it is neither believed nor in the way.
package struct RuntimeDirectory: Sendable {
    static let infoName = "info.json"
    static let socketName = "control.sock"

    /// A daemon registers in the first place that can be used. Look-ups go through all of them.
    private let places: [BytePath]
    /// If no place can be used, a folder with this prefix and a random end is made here; nil: none is made.
    private let shared: (folder: BytePath, prefix: String)?

    /// The registry at `path`, which is made when a daemon registers.
    package init(path: BytePath) { self.init([path]) }

    /// The registry at the first of `places` that can be used, or else in a folder of its own in `shared`.
    package init(_ places: [BytePath], shared: (folder: BytePath, prefix: String)? = nil) {
        self.places = places
        self.shared = shared
    }

    /// The standard places: /run/passhsm for the machine's root; else $XDG_RUNTIME_DIR/passhsm, /run/user/UID/passhsm
    /// and /tmp/passhsm-UID. If other users hold all of these, it is a folder with a random name in /tmp.
    package static func standard() -> RuntimeDirectory {
        if OwnProcess.isMachineRoot { return RuntimeDirectory(path: BytePath("/run/passhsm")) }
        let user = OwnProcess.user
        var places = [BytePath("/run/user/\(user)/passhsm"), BytePath("/tmp/passhsm-\(user)")]
        if let value = getenv("XDG_RUNTIME_DIR"), value.pointee == CChar(UInt8(ascii: "/")) {
            places.insert(BytePath(cString: value).appending("passhsm"), at: 0)
        }
        return RuntimeDirectory(places, shared: (BytePath("/tmp"), "passhsm-\(user)."))
    }

    // MARK: Registering

    /// Enters this process's daemon, and removes the entries of ended daemons.
    package func register(_ info: DaemonInfo) throws(ControlError) -> DaemonRegistration {
        do throws(Errno) {
            let root = try folder()
            for folder in folders() { removeStale(in: folder) }
            let name = "\(info.pid)"
            // An earlier process with the same id, which is gone, can have left such a folder.
            Self.remove(name, in: root)
            _ = try check { mkdirat(root.raw, name, 0o700) }
            let folder = try Self.openFolder(name, in: root)
            let registration = DaemonRegistration(root: root, folder: folder, name: name)
            guard let content = try? ControlJSON.encode(info) else { throw Errno(rawValue: EINVAL) }
            try SmallFile.replace(Self.infoName, in: folder, with: content)
            return registration
        } catch {
            throw unusable(error)
        }
    }

    /// The registry's folder, which is made if it is missing: also for sockets that outlive a daemon.
    ///
    /// - Throws: the first place's error, when no place can be used.
    package func folder() throws(Errno) -> Descriptor {
        var failure = Errno(rawValue: ENOENT)
        for (index, place) in places.enumerated() {
            do throws(Errno) { return try Self.open(place, create: true) } catch { if index == 0 { failure = error } }
        }
        if let folder = sharedFolders().first { return folder }
        guard let shared else { throw failure }
        var template = shared.folder.appending(shared.prefix + "XXXXXX").cString
        guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
        return try Self.open(BytePath(template.map { UInt8(bitPattern: $0) }), create: false)
    }

    /// Returns ``folder()``, or throws an error that says which places cannot be used, and why.
    package func usableFolder() throws(ControlError) -> Descriptor {
        do throws(Errno) { return try folder() } catch { throw unusable(error) }
    }

    private func unusable(_ error: Errno) -> ControlError {
        let names = places.map(\.description).joined(separator: ", ")
        let way = error.rawValue == EPERM ? "; the folder has to belong to this user alone (mode 0700)" : ""
        return ControlError(.registry, "cannot register in \(names): \(error.text)\(way)")
    }

    /// All existing folders of the registry, each once.
    private func folders() -> [Descriptor] {
        var known: Set<[UInt64]> = []
        return (places.compactMap { try? Self.open($0, create: false) } + sharedFolders()).filter { folder in
            (try? folder.stat()).map { known.insert([UInt64($0.st_dev), UInt64($0.st_ino)]).inserted } ?? false
        }
    }

    private func sharedFolders() -> [Descriptor] {
        guard let shared else { return [] }
        return DirectoryReader.texts(in: shared.folder.description).sorted().filter { $0.hasPrefix(shared.prefix) }
            .compactMap { try? Self.open(shared.folder.appending($0), create: false) }
    }

    /// Opens a folder of the registry, which must be a directory of ours that others cannot enter.
    private static func open(_ path: BytePath, create: Bool) throws(Errno) -> Descriptor {
        if create {
            do throws(Errno) {
                _ = try path.withCString { name throws(Errno) in try check { mkdir(name, 0o700) } }
            } catch {
                if error.rawValue != EEXIST { throw error }
            }
        }
        let folder = try path.withCString { name throws(Errno) in
            try Descriptor.open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        }
        // In /tmp any user may have made it first.
        let status = try folder.stat()
        guard Descriptor.isOwn(status), status.st_mode & 0o077 == 0 else { throw Errno(rawValue: EPERM) }
        return folder
    }

    private static func openFolder(_ name: String, in root: Descriptor) throws(Errno) -> Descriptor {
        try Descriptor.open(at: root.raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    }

    private func removeStale(in root: Descriptor) {
        for name in Self.names(in: root) {
            guard let pid = Int32(name) else { continue }
            // If the info cannot be read, a daemon may just be starting: then its process is there.
            let isAlive = Self.info(name, in: root)?.isAlive ?? (ProcessHandle.startTime(of: pid) != nil)
            if !isAlive { Self.remove(name, in: root) }
        }
    }

    static func remove(_ name: String, in root: Descriptor) {
        guard let folder = try? openFolder(name, in: root) else { return }
        for file in [socketName, infoName, infoName + ".new"] { unlinkat(folder.raw, file, 0) }
        unlinkat(root.raw, name, AT_REMOVEDIR)
    }

    // MARK: Looking up

    /// All entries, also those of ended daemons, by process id. Empty where there is no registry.
    package func all() -> [DaemonInfo] {
        folders().flatMap { root in Self.names(in: root).compactMap { Self.info($0, in: root) } }
            .sorted { $0.pid < $1.pid }
    }

    /// The running daemon that is mounted at `path` (made canonical without touching any registered mount).
    package func daemon(forMountpoint path: BytePath) throws(Errno) -> DaemonInfo? {
        let all = all()
        let canonical = try Self.resolver(all).resolve(path)
        return all.last { $0.mountpoint == canonical && $0.isAlive }
    }

    /// The running daemon whose mount contains `path`; the innermost of nested mounts.
    package func daemon(containing path: BytePath) throws(Errno) -> DaemonInfo? {
        let all = all()
        let canonical = try Self.resolver(all).resolve(path)
        return all.filter { $0.mountpoint.contains(canonical) && $0.isAlive }
            .max { $0.mountpoint.bytes.count < $1.mountpoint.bytes.count }
    }

    /// The running daemon that serves the lower directory `path`.
    package func daemon(forLower path: BytePath) throws(Errno) -> DaemonInfo? {
        let all = all()
        let canonical = try Self.resolver(all).resolve(path)
        return all.last { $0.lower == canonical && $0.isAlive }
    }

    /// The canonical form of `path`, as the registry's entries have it.
    package func canonical(_ path: BytePath) throws(Errno) -> BytePath { try Self.resolver(all()).resolve(path) }

    /// The folder of a daemon, which has its socket.
    func folder(of info: DaemonInfo) throws(Errno) -> Descriptor {
        let name = "\(info.pid)"
        guard let root = folders().first(where: { Self.info(name, in: $0) == info }) else {
            throw Errno(rawValue: ENOENT)
        }
        return try Self.openFolder(name, in: root)
    }

    private static func resolver(_ all: [DaemonInfo]) -> PathResolver {
        PathResolver(untouchable: Set(all.map(\.mountpoint)))
    }

    private static func info(_ name: String, in root: Descriptor) -> DaemonInfo? {
        guard let folder = try? openFolder(name, in: root),
            let content = try? Descriptor.openOwn(at: folder, infoName, O_RDONLY).readToEnd(),
            let info = try? ControlJSON.decode(DaemonInfo.self, from: content), name == "\(info.pid)"
        else { return nil }
        return info
    }

    private static func names(in root: Descriptor) -> [String] {
        DirectoryReader.texts(in: root).filter { Int32($0) != nil }
    }
}

/// A daemon's entry in the registry. Its end, or ``remove()``, removes the entry.
package final class DaemonRegistration: Sendable {
    private let root: Descriptor
    /// The daemon's own folder.
    let folder: Descriptor
    private let name: String

    init(root: Descriptor, folder: Descriptor, name: String) {
        self.root = root
        self.folder = folder
        self.name = name
    }

    deinit { remove() }

    /// Removes the folder and everything in it; may be called again.
    package func remove() { RuntimeDirectory.remove(name, in: root) }
}
