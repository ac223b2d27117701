import ArgumentParser
import HSMControl

/// `passhsm recall`: fills files whole.
struct RecallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recall", abstract: "Fill files whole now, and wait for it.",
        discussion: """
            Needs a mounted lower directory. What programs read comes first; a recall that is broken off leaves what it \
            has filled. The exit status is 1 when a file could not be filled.
            """, aliases: ["restore", "stage"])

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        guard targets.offline.isEmpty else {
            throw CommandError("\(targets.offline[0].path): not in a mount; recall needs one")
        }
        try targets.run(.recall) { "\($0.files) files recalled, \(TextTable.size($0.bytes))" }
    }
}
