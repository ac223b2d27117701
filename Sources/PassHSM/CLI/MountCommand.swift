import ArgumentParser
import Glibc
import HSMControl
import HSMDaemon
import HSMRemotes
import HSMSystem

/// `passhsm mount`: starts a daemon that serves a lower directory at a mount point.
struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount", abstract: "Mount a lower directory.",
        discussion: """
            The command returns when the mount is ready, and leaves a daemon in the background. The lower directory \
            has recorded its source, and the settings that were given to the import.
            """)

    @Argument(help: "The lower directory: the one that an import has built.")
    var lower: PathArgument

    @Argument(help: ArgumentHelp("The directory to mount on (default: the lower directory).", valueName: "mountpoint"))
    var place: PathArgument?

    @Option(
        name: .customLong("frontend"), help: "The interface to the kernel: fuse, fanotify or auto (default: fuse).",
        completion: .list(FrontEndOption.choices), transform: FrontEndOption.init(parsing:))
    var frontEnd: FrontEndOption?

    @Option(
        help: ArgumentHelp(
            "With fanotify, how long readers wait for a new daemon when this one dies (default: 30).",
            valueName: "seconds"),
        transform: TakeoverTime.init(parsing:))
    var takeover: TakeoverTime?

    @Flag(
        help: ArgumentHelp(
            """
            With --frontend fanotify, accept a lower directory that is not the top of its file system. Programs in \
            other mount namespaces (containers, services) then read zeros in place of missing content.
            """))
    var allowHoles = false

    @OptionGroup(title: "Settings (default: those that the import has recorded)") var given: MountSettingsArguments

    @Option(help: ArgumentHelp("The log file of the background daemon.", valueName: "file"))
    var log: PathArgument?

    @OptionGroup var logging: LogArguments

    @Flag(help: "Stay in the foreground, and log to stderr.")
    var foreground = false

    @Flag(help: .hidden)
    var ignoreNothing = false

    @Option(help: .hidden, transform: SimulatedBehaviour.init(_:))
    var simulate: SimulatedBehaviour?

    private var mountpoint: PathArgument { place ?? lower }

    func validate() throws {
        guard let frontEnd else { return }
        do throws(OptionError) { _ = try DaemonConfiguration.frontEnd(frontEnd, with: given.settings) } catch {
            throw ValidationError(error.description)
        }
    }

    func run() throws {
        guard foreground else {
            let path = try absoluteLog(lower: checkedConfiguration().lower)
            Output.lines([try DaemonLauncher(log: path).launch()])
            return
        }
        let readiness = try Readiness.inherited()
        do {
            var configuration = try checkedConfiguration()
            if readiness.isDaemon { configuration.log = try absoluteLog(lower: configuration.lower) }
            // Otherwise the daemon would keep the file system busy that its current directory is on.
            if readiness.isDaemon { _ = chdir("/") }
            try DaemonProcess.serve(configuration, log: Output.log, ready: readiness.ready)
        } catch {
            readiness.failed((error as? Errno)?.text ?? "\(error)")
            throw error
        }
    }

    /// Returns the same path for the command and for the daemon that it starts.
    private func absoluteLog(lower: BytePath) throws(Errno) -> BytePath {
        guard let path = log?.path else { return try Self.defaultLog(lower: lower) }
        return path.isAbsolute ? path : try BytePath.currentDirectory().appending(path)
    }

    private static func defaultLog(lower: BytePath) throws(Errno) -> BytePath {
        try DaemonLog.defaultPath(
            lower: lower, user: OwnProcess.isMachineRoot ? nil : OwnProcess.user,
            environment: { name in getenv(name).map { String(cString: $0) } },
            fallback: { () throws(Errno) in
                let folder = try RuntimeDirectory.standard().folder()
                return try BytePath("/proc/self/fd/\(folder.raw)").readLink()
            })
    }

    // MARK: Checks

    /// Returns the configuration with canonical paths. Checks everything about them that can be checked before the
    /// daemon starts.
    private func checkedConfiguration() throws -> DaemonConfiguration {
        let registry = RuntimeDirectory.standard()
        // Before the mount point is touched: its daemon may hang.
        if let daemon = try registry.daemon(forMountpoint: mountpoint.path) {
            try EndingDaemon(daemon).wait(
                orRefuse: "\(daemon.mountpoint) is already mounted by process \(daemon.pid)")
        }
        try UnregisteredMount.takeAway(
            lower: registry.canonical(lower.path), mountpoint: registry.canonical(mountpoint.path),
            except: registry.all()
        ) { place in
            PassHSMCommand.printError("removed the mount on \(place): its daemon was gone")
        }
        let lowerPath = try Self.directory(
            lower.path, "the lower directory", missing: "`passhsm import` makes one")
        try Self.expectNotNested(lowerPath)
        let mountPath = try Self.directory(mountpoint.path, "the mount point", missing: "create it first")
        if let daemon = try registry.daemon(forLower: lowerPath) {
            try EndingDaemon(daemon).wait(
                orRefuse: "\(lowerPath) is already mounted on \(daemon.mountpoint) by process \(daemon.pid)")
        }
        var configuration = DaemonConfiguration(lower: lowerPath, mountpoint: mountPath)
        configuration.settings = given.settings
        if let frontEnd {
            configuration.frontEnd = try DaemonConfiguration.frontEnd(frontEnd, with: configuration.settings)
        }
        if let takeover { configuration.takeover = takeover }
        if let level = logging.logLevel { configuration.logLevel = level }
        configuration.allowsHoles = allowHoles
        configuration.ignoresNothing = ignoreNothing
        configuration.simulate = simulate
        return configuration
    }

    /// A lower directory inside another one would be shown, filled and released by both.
    static func expectNotNested(_ lower: BytePath) throws {
        if let outer = try LowerState.outerDirectory(of: lower) {
            throw CommandError(
                "\(lower) is inside \(outer), which is another lower directory, or a mount of one; choose a directory "
                    + "outside of it")
        }
    }

    /// - Parameter missing: the way out when the directory does not exist.
    private static func directory(_ path: BytePath, _ role: String, missing: String) throws -> BytePath {
        do throws(Errno) {
            let real = try path.real()
            guard try real.stat().st_mode & S_IFMT == S_IFDIR else { throw Errno(rawValue: ENOTDIR) }
            return real
        } catch {
            if error.rawValue == ENOTCONN {
                throw CommandError("\(path) is a mount whose daemon is gone; `passhsm unmount` removes it")
            }
            let text = String(cString: strerror(error.rawValue))
            let wayOut = error.rawValue == ENOENT ? "; \(missing)" : ""
            throw CommandError("\(role) \(path): \(text)\(wayOut)")
        }
    }
}
