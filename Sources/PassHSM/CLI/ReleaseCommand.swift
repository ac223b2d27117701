import ArgumentParser
import HSMControl

/// `passhsm release`: makes files offline.
struct ReleaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release", abstract: "Free the space of files that the remote tier has too.",
        discussion: """
            The content is fetched again when a program reads it. A file stays as it is when it is open or mapped, \
            has local changes, is pinned or local, or when the remote no longer has the same version of it. The \
            command then prints the reason, and exits with status 1.
            """)

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.release) { "\(TextTable.count($0.files, "file")) released, \(TextTable.size($0.bytes)) freed" }
    }
}
