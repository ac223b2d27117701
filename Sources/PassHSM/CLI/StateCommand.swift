import ArgumentParser
import Glibc
import HSMControl
import HSMSystem

/// `passhsm state`: what is known about files, through a mount or in a lower directory.
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
        let answer: [UInt8]
        do throws(Errno) {
            answer = try path.withCString { name throws(Errno) in
                try ExtendedAttributes.value(StateReport.attribute, of: name)
            }
        } catch {
            // Not one of our mounts: no file system has attributes without a namespace.
            guard [ENODATA, EOPNOTSUPP].contains(error.rawValue) else { throw error }
            return try lower.report(path)
        }
        guard var report = try? ControlJSON.decode(StateReport.self, from: answer) else {
            throw CommandError("the mount answered with something else than a state")
        }
        report.path = path
        return report
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
