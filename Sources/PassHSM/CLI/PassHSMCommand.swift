import ArgumentParser
import Glibc
import HSMControl
import HSMSystem

/// The program: `passhsm COMMAND ...`.
@main
struct PassHSMCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "passhsm",
        abstract: "A directory whose files are fetched from a remote tier when they are opened or read.",
        version: ProgramVersion.text,
        subcommands: [
            ImportCommand.self,
            MountCommand.self, UnmountCommand.self, StatusCommand.self, StateCommand.self, DoctorCommand.self,
            RecallCommand.self, ReleaseCommand.self, PinCommand.self, UnpinCommand.self,
            VerifyCommand.self, AdoptCommand.self, GuardCommand.self,
        ])

    /// Runs the command. Exit status 0; 1 when the command failed; 64 when it was called wrongly. An error is one line
    /// on stderr.
    static func main() {
        ProcessStart.prepare()
        do {
            var command = try parseAsRoot(ProgramArguments.encoded)
            try command.run()
        } catch {
            finish(error)
        }
    }

    private static func finish(_ error: any Error) -> Never {
        let code = exitCode(for: error)
        // Help and version are errors to the parser, and belong on stdout.
        if code == .success { exit(withError: error) }
        // An exit code alone: the command has reported everything already.
        if let code = error as? ExitCode { Glibc.exit(code.rawValue) }
        let text = code == .validationFailure ? message(for: error) : "\(error)"
        printError(text)
        // `verify` has the exit statuses of fsck(8).
        if ProgramArguments.encoded.first == "verify" { Glibc.exit(VerifyCommand.Status.usage.rawValue) }
        Glibc.exit(code.rawValue)
    }

    /// Prints one line on stderr, after the program's name.
    static func printError(_ text: String) {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        // Earlier output on stdout stays in front when both are the same file.
        fflush(nil)
        let bytes = Array("passhsm: \(ArgumentText.readable(line))\n".utf8)
        _ = bytes.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}

/// The reason why a command failed: one line for the user. Exit status 1.
struct CommandError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
