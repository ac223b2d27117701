import ArgumentParser
import Glibc
import HSMControl
import HSMCore
import HSMDaemon
import HSMStore
import HSMSystem
import Logging

/// Files to work on, grouped by the process that does the work: the daemon that they belong to, or this process where
/// there is no daemon.
final class FileTargets {
    struct Group {
        /// The mount point or the lower directory, as it was found.
        let root: BytePath
        /// Nil: no daemon has the lower directory in use.
        let daemon: DaemonInfo?
        /// Paths below the root.
        var paths: [BytePath] = []

        var path: BytePath { paths.first.map { root.appending($0) } ?? root }
    }

    private let registry = RuntimeDirectory.standard()
    private let arguments: FileArguments
    private var groups: [Group] = []
    private var hasFailed = false
    private let display = ProgressLine()
    /// The sum of the finished requests.
    private var total = WorkReport()

    var offline: [Group] { groups.filter { $0.daemon == nil } }

    init(_ arguments: FileArguments) throws {
        self.arguments = arguments
        for argument in arguments.paths {
            do { try add(argument.path) } catch {
                hasFailed = true
                PassHSMCommand.printError("\(argument.path): \((error as? Errno)?.text ?? "\(error)")")
            }
        }
    }

    private func add(_ path: BytePath) throws {
        let real = try LowerPath.canonical(path, registry)
        var found: (root: BytePath, below: BytePath, daemon: DaemonInfo?)?
        if let daemon = try registry.daemon(containing: real) {
            _ = try path.linkStat()
            let below = real.bytes.dropFirst(daemon.mountpoint.bytes.count).drop { $0 == UInt8(ascii: "/") }
            found = (daemon.mountpoint, BytePath(below), daemon)
        } else if let place = LowerPath(real) {
            _ = try place.file.linkStat()
            found = (place.lower, place.below, try registry.daemon(forLower: place.lower))
        }
        guard let found else {
            _ = try path.linkStat()
            throw CommandError("it is neither in a mount nor in a lower directory of PassHSM")
        }
        let below = found.below
        if let index = groups.firstIndex(where: { $0.root == found.root }) {
            groups[index].paths.append(below)
        } else {
            groups.append(Group(root: found.root, daemon: found.daemon, paths: [below]))
        }
    }

    /// The number of paths in one request: a request is a line of at most a mebibyte.
    private static let maxPaths = 100

    /// Does the work. Throws when a file was left as it was, after all such files were reported.
    func run(_ action: FileRequest.Action, _ summary: (WorkReport) -> String) throws {
        defer { display.finish() }
        for group in groups {
            let files = try group.daemon == nil ? UnmountedFiles(Self.open(group.root, action)) : nil
            for start in stride(from: 0, to: group.paths.count, by: Self.maxPaths) {
                let paths = Array(group.paths[start..<min(start + Self.maxPaths, group.paths.count)])
                let request = FileRequest(action, paths: paths, isRecursive: arguments.recursive)
                if let daemon = group.daemon {
                    try ControlClient(daemon, in: registry).work(request) { take($0, group) }
                } else if let files {
                    _ = FileJob(request, on: files).run { report in
                        take(report, group)
                        return true
                    }
                }
            }
        }
        display.finish()
        if !arguments.quiet { Output.lines([summary(total)]) }
        if hasFailed { throw ExitCode.failure }
    }

    private func take(_ report: WorkReport, _ group: Group) {
        if !report.failures.isEmpty {
            hasFailed = true
            display.finish()
        }
        for failure in report.failures {
            let path = failure.path.bytes.isEmpty ? group.root : group.root.appending(failure.path)
            PassHSMCommand.printError("\(path): \(failure.cause)")
        }
        if !arguments.quiet { display.show { line(report) } }
        guard report.isDone else { return }
        total.files.add(saturating: report.files)
        total.bytes.add(saturating: report.bytes)
    }

    private func line(_ report: WorkReport) -> String {
        guard let files = report.totalFiles, let bytes = report.totalBytes else {
            return "\(report.files) files, \(TextTable.size(report.bytes))"
        }
        let share = TextTable.percent(report.bytes, of: bytes)
        return "\(display.bar(report.bytes, of: bytes))\(report.files) of \(files) files, "
            + "\(TextTable.size(report.bytes)) of \(TextTable.size(bytes)), \(share)"
    }

    // MARK: Without a daemon

    private static func open(_ root: BytePath, _ action: FileRequest.Action) throws -> Store {
        var log = Logger(label: "passhsm", factory: Output.log)
        log.logLevel = .error
        return try Store.open(root.cString, create: false, purpose: "`passhsm \(action.rawValue)`", log: log)
    }
}
