import ArgumentParser
import HSMControl

/// `passhsm release`: makes files offline.
struct ReleaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release", abstract: "Free the space of files that the remote tier has too.",
        discussion: """
            Their content is fetched again when it is next read. A file that is open or mapped, has local changes, is \
            pinned or local, or of which the remote has no longer the same version, stays as it is, and the reason is \
            told. The exit status is then 1.
            """)

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.release) { "\($0.files) files released, \(TextTable.size($0.bytes)) freed" }
    }
}
