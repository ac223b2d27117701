import ArgumentParser
import Glibc
import HSMControl
import HSMDaemon
import HSMStore
import HSMSystem

/// `passhsm verify`: compares the records of a lower directory with its content.
struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every record, residency map and checksum of a lower directory that is not mounted.",
        discussion: """
            With --repair, wrong content is dropped, and fetched again when a program reads it. Local changes are \
            never dropped.

            Complete files are compared with the checksum of the content that came from the remote. With \
            --against-remote they are compared with the remote's copy, where it still has the recorded version.

            The exit status is the sum of 1 (something was dropped) and 4 (something wrong was left); or 8 (the check \
            failed), or 16 (wrong usage).
            """)

    /// fsck(8)'s exit status.
    struct Status: OptionSet {
        let rawValue: Int32

        static let corrected = Status(rawValue: 1)
        static let left = Status(rawValue: 4)
        static let failed = Status(rawValue: 8)
        static let usage = Status(rawValue: 16)
    }

    @Argument(help: "The lower directory.")
    var lower: PathArgument

    @Flag(help: "Drop wrong content, so that it is fetched again.")
    var repair = false

    @Flag(help: "Compare each complete file with the remote's copy, byte for byte.")
    var againstRemote = false

    @Flag(help: "Print a JSON object.")
    var json = false

    @OptionGroup var logging: LogArguments

    func run() throws {
        var status: Status
        do {
            status = try verify()
        } catch {
            PassHSMCommand.printError((error as? Errno).map { "\(lower.path): \($0.text)" } ?? "\(error)")
            status = .failed
        }
        if !status.isEmpty { throw ExitCode(status.rawValue) }
    }

    private func verify() throws -> Status {
        let log = logging.logger()
        let store = try Store.open(
            lower.path.cString, create: false, purpose: "verify", log: log, keepsLeftovers: true)
        let display = TreeDisplay(LowerPath(lower: lower.path).file)
        defer { display.finish() }
        var report = Report()
        let remote = try againstRemote ? store.configuration().openRemote() : nil
        let verifier = try Verifier(store, repairs: repair, remote: remote) { finding in
            if json {
                report.findings.append(Report.Item(finding))
            } else {
                display.clear()
                Output.lines([Self.line(finding)])
            }
        } progress: { counts in
            display.show(counts.names, "\(TextTable.size(counts.bytes)) compared, \(counts.findings) found")
        }
        let counts = try verifier.run()
        display.finish()
        if json {
            report.counts = [
                "names": counts.names, "files": counts.files, "bytes": counts.bytes, "findings": counts.findings,
                "dropped": counts.dropped, "unchecked": counts.unchecked, "changed": counts.changed,
                "leftovers": counts.leftovers,
            ]
            try Output.json(report)
        } else {
            let rest = counts.findings - counts.dropped
            let found = counts.findings == 0 ? "nothing wrong" : "\(counts.dropped) dropped, \(rest) left"
            Output.lines([
                "\(lower.path): \(TextTable.count(counts.files, "file")), "
                    + "\(TextTable.size(counts.bytes)) compared: \(found)"
            ])
            Output.lines(Self.remarks(counts))
        }
        var status: Status = counts.dropped > 0 ? .corrected : []
        if counts.findings > counts.dropped { status.insert(.left) }
        return status
    }

    /// Lines about files that could not be compared.
    private static func remarks(_ counts: VerifyCounts) -> [String] {
        var lines: [String] = []
        if counts.unchecked > 0 {
            let files = TextTable.count(counts.unchecked, "complete file")
            lines.append("not compared: \(files) without a recorded checksum")
        }
        if counts.changed > 0 {
            let files = TextTable.count(counts.changed, "complete file")
            lines.append("not compared: \(files) of which the remote has another version, or none")
        }
        return lines
    }

    private static func line(_ finding: Disagreement) -> String {
        let range = finding.range.map { "bytes \($0.lowerBound) to \($0.upperBound): " } ?? ""
        let text = "\(BytePath(finding.path)): \(range)\(finding.cause)"
        return ArgumentText.readable(finding.outcome == .dropped ? "\(text) (dropped)" : text)
    }

    /// The form of `--json`.
    private struct Report: Encodable {
        struct Item: Encodable {
            let path: BytePath
            let kind: String
            /// The first byte, and the one after the last; nil for all of the file.
            let range: [Int]?
            let cause: String
            let outcome: String

            init(_ finding: Disagreement) {
                path = BytePath(finding.path)
                kind = finding.kind.rawValue
                range = finding.range.map { [$0.lowerBound, $0.upperBound] }
                cause = finding.cause
                outcome = finding.outcome.rawValue
            }
        }

        var counts: [String: Int] = [:]
        var findings: [Item] = []
    }
}
