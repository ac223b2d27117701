import ArgumentParser
import HSMControl
import HSMDiagnostics
import HSMSystem

/// `passhsm doctor`: shows the abilities of this machine and of a lower directory.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check this machine, and a lower directory, for the features that mount uses. Changes nothing.")

    @Argument(help: "A lower directory to check as well.")
    var lower: PathArgument?

    @Flag(help: "Print a JSON array.")
    var json = false

    func run() throws {
        let findings = Doctor().examine(lower: lower?.path)
        if json {
            try Output.json(findings)
        } else {
            Output.lines(TextTable.lines(findings.map { [$0.verdict.rawValue, $0.name, $0.detail] }))
        }
        // The last finding is the verdict.
        if findings.last?.verdict == .missing { throw ExitCode.failure }
    }
}
