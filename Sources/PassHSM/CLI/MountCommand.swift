import ArgumentParser
import Glibc
import HSMControl
import HSMSystem

/// `passhsm mount`: starts a daemon that serves a lower directory at a mount point.
struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount", abstract: "Mount a lower directory.",
        discussion: "Returns when the mount can be used; the daemon goes on in the background.")

    @Argument(help: "The directory to show, with files that may be incomplete.")
    var lower: PathArgument

    @Argument(help: "Where to show it; may be the same directory.")
    var mountpoint: PathArgument

    @Option(name: .customLong("frontend"), help: "How the kernel tells of accesses: fuse, fanotify or auto.")
    var frontEnd = MountOptions.FrontEnd.fuse

    @Option(help: "When incomplete files are filled: auto, open or read.")
    var fill = MountOptions.Fill.auto

    @Option(help: "What the kernel may cache of names and attributes: shared, exclusive or none.")
    var cache: MountOptions.Cache?

    @Option(help: "What becomes of files whose remote copy has changed: error or refetch.")
    var onChange = MountOptions.OnChange.error

    @Option(help: "When content is compared with the remote's digest: complete or strict (before any of it is seen).")
    var verify = MountOptions.Verify.complete

    @Option(help: ArgumentHelp("How long a fill may take before it fails.", valueName: "seconds"))
    var deadline = 60

    @Option(
        help: ArgumentHelp(
            "How long readers wait for a new daemon when this one dies (fanotify).", valueName: "seconds"))
    var takeover = 30

    @Flag(name: .customLong("no-passthrough"), help: "Read complete files through the daemon.")
    var noPassthrough = false

    @Option(help: ArgumentHelp("The log of a daemon in the background.", valueName: "file"))
    var log: PathArgument?

    @Flag(help: "Stay in the foreground, and log to stderr.")
    var foreground = false

    @Option(help: .hidden)
    var simulate: String?

    func validate() throws {
        guard (1...86_400).contains(deadline) else {
            throw ValidationError("--deadline is a number of seconds from 1 to 86400")
        }
        guard (0...86_400).contains(takeover) else {
            throw ValidationError("--takeover is a number of seconds from 0 to 86400")
        }
        if frontEnd == .fanotify, let option = fuseOption {
            throw ValidationError("\(option) is for FUSE, and not with --frontend fanotify")
        }
    }

    /// The first option that was given and that only FUSE can have.
    private var fuseOption: String? {
        if cache != nil { return "--cache" }
        if onChange == .refetch { return "--on-change refetch" }
        return noPassthrough ? "--no-passthrough" : nil
    }

    func run() throws {
        guard foreground else {
            let options = try checkedOptions()
            let path = log?.path ?? Self.defaultLog(lower: options.lower)
            print(try DaemonLauncher(log: path).launch())
            return
        }
        let readiness = try Readiness.inherited()
        do {
            let options = try checkedOptions()
            // Otherwise the daemon would keep the file system busy that it was started from.
            if readiness.isDaemon { _ = chdir("/") }
            try serve(options, readiness: readiness)
        } catch {
            readiness.failed((error as? Errno)?.text ?? "\(error)")
            throw error
        }
    }

    private static func defaultLog(lower: BytePath) -> BytePath {
        DaemonLog.defaultPath(lower: lower, user: OwnProcess.isMachineRoot ? nil : OwnProcess.user) { name in
            getenv(name).map { String(cString: $0) }
        }
    }

    // MARK: Checks

    /// The options with canonical paths, after everything that can be found wrong with them before the daemon starts.
    private func checkedOptions() throws -> MountOptions {
        let registry = RuntimeDirectory.standard()
        // Before the mount point is touched: its daemon may hang.
        if let daemon = try registry.daemon(forMountpoint: mountpoint.path) {
            throw CommandError("\(daemon.mountpoint) is already mounted by process \(daemon.pid)")
        }
        let lowerPath = try Self.directory(lower.path, "the lower directory")
        let mountPath = try Self.directory(mountpoint.path, "the mount point")
        if let daemon = try registry.daemon(forLower: lowerPath) {
            throw CommandError("\(lowerPath) is already mounted on \(daemon.mountpoint) by process \(daemon.pid)")
        }
        return MountOptions(
            frontEnd: frontEnd == .auto && fuseOption != nil ? .fuse : frontEnd, takeoverSeconds: takeover,
            lower: lowerPath, mountpoint: mountPath, fill: fill, onChange: onChange, verify: verify, cache: cache,
            deadlineSeconds: deadline,
            simulate: simulate, usesPassthrough: !noPassthrough)
    }

    private static func directory(_ path: BytePath, _ role: String) throws -> BytePath {
        do throws(Errno) {
            let real = try path.real()
            guard try real.stat().st_mode & S_IFMT == S_IFDIR else { throw Errno(rawValue: ENOTDIR) }
            return real
        } catch {
            if error.rawValue == ENOTCONN {
                throw CommandError("\(path) is a mount whose daemon is gone; `passhsm unmount` takes it away")
            }
            let text = String(cString: strerror(error.rawValue))
            throw CommandError("\(role) \(path): \(text)")
        }
    }
}
