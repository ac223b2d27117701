import ArgumentParser
import Glibc
import HSMControl
import HSMSystem

/// `passhsm state`: shows the state of files, through a mount or in a lower directory.
struct StateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "state", abstract: "Show where the content of files is.")

    @Argument(help: "Paths in a mount or in a lower directory. Symbolic links are not followed.")
    var paths: [PathArgument]

    @Flag(help: "Print a JSON array.")
    var json = false

    func run() throws {
        var reports: [StateReport] = []
        var hasFailed = false
        var lower = LowerState()
        for argument in paths {
            do {
                reports.append(try Self.report(argument.path, &lower))
            } catch {
                hasFailed = true
                PassHSMCommand.printError("\(argument.path): \((error as? Errno)?.text ?? "\(error)")")
            }
        }
        if json {
            try Output.json(reports)
        } else if paths.count == 1, let report = reports.first {
            Output.lines(Self.details(of: report))
        } else {
            Output.lines(TextTable.lines(reports.map(Self.row)))
            for warning in Set(reports.compactMap(\.warning)) { PassHSMCommand.printError(warning) }
        }
        if hasFailed { throw ExitCode.failure }
    }

    private static func report(_ path: BytePath, _ lower: inout LowerState) throws -> StateReport {
        var report: StateReport
        switch answer(path) {
        case .success(let answer):
            guard let decoded = try? ControlJSON.decode(StateReport.self, from: answer) else {
                throw CommandError("the mount sent an answer that is not a state")
            }
            report = decoded
        case .failure(let error):
            // The path is in no FUSE mount of this program. No file system has attributes without a namespace.
            guard [ENODATA, EOPNOTSUPP, ENOENT].contains(error.rawValue) else { throw error }
            report = try recorded(path, error, &lower)
        }
        report.path = path
        return report
    }

    private static func answer(_ path: BytePath) -> Result<[UInt8], Errno> {
        do throws(Errno) {
            return .success(
                try path.withCString { name throws(Errno) in
                    try ExtendedAttributes.value(StateReport.attribute, of: name)
                })
        } catch { return .failure(error) }
    }

    /// - Parameter error: the error that the path gave as it stands.
    private static func recorded(_ path: BytePath, _ error: Errno, _ lower: inout LowerState) throws -> StateReport {
        let registry = RuntimeDirectory.standard()
        let canonical = try LowerPath.canonical(path, registry)
        if let daemon = try registry.daemon(containing: canonical) {
            if error.rawValue == ENOENT { throw error }
            let below = canonical.bytes.dropFirst(daemon.mountpoint.bytes.count).drop { $0 == UInt8(ascii: "/") }
            let request = ControlRequest.state(BytePath(below))
            guard let report = try ControlClient(daemon, in: registry).request(request).state else {
                throw CommandError("the daemon (process \(daemon.pid)) sent no state")
            }
            return report
        }
        guard let place = LowerPath(canonical) else {
            if error.rawValue == ENOENT { throw error }
            throw CommandError("it is neither in a mount nor in a lower directory of PassHSM")
        }
        return try lower.report(place)
    }

    // MARK: For people

    private static func flags(_ report: StateReport) -> String {
        report.flags.isEmpty ? "-" : report.flags.joined(separator: ",")
    }

    private static func row(_ report: StateReport) -> [String] {
        let isFile = report.kind == "file"
        let size = "\(TextTable.size(report.presentBytes)) / \(TextTable.size(report.size))"
        return [
            report.state, flags(report), isFile ? size : report.kind,
            isFile ? TextTable.percent(report.presentBytes, of: report.size) : "", "\(report.path)",
        ]
    }

    private static func details(of report: StateReport) -> [String] {
        var rows = [
            ["path", "\(report.path)"], ["kind", report.kind], ["state", report.state], ["flags", flags(report)],
        ]
        if report.kind == "file" {
            let percent = TextTable.percent(report.presentBytes, of: report.size)
            rows.append(["size", "\(TextTable.size(report.size)) (\(report.size) bytes)"])
            rows.append([
                "present", "\(TextTable.size(report.presentBytes)) (\(report.presentBytes) bytes, \(percent))",
            ])
        }
        if let key = report.remoteKey { rows.append(["remote key", ArgumentText.readable(key)]) }
        if let version = report.remoteVersion { rows.append(["remote version", ArgumentText.readable(version)]) }
        if let granule = report.granuleSize { rows.append(["granule", TextTable.size(granule)]) }
        if let warning = report.warning { rows.append(["warning", warning]) }
        if let error = report.lastError { rows.append(["last error", ArgumentText.readable(error)]) }
        let isPart = report.presentBytes > 0 && report.presentBytes < report.size
        for (index, range) in report.ranges.prefix(isPart ? .max : 0).enumerated() where range.count == 2 {
            rows.append([index == 0 ? "ranges" : "", "\(range[0]) to \(range[1])"])
        }
        if isPart, report.rangesTruncated { rows.append(["", "and more"]) }
        return TextTable.lines(rows)
    }
}
