import ArgumentParser
import HSMControl

/// `passhsm recall`: fills files whole.
struct RecallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recall", abstract: "Fetch all content of files, and wait until it is here.",
        discussion: """
            The files have to be in a mount. Reads of programs come first. If the command is interrupted, the content \
            that it has fetched stays. The exit status is 1 when a file could not be filled.
            """, aliases: ["restore", "stage"])

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        guard targets.offline.isEmpty else {
            let path = targets.offline[0].path
            throw CommandError("\(path): it is not in a mount, and recall needs one: run `passhsm mount` first")
        }
        try targets.run(.recall) { "\(TextTable.count($0.files, "file")) recalled, \(TextTable.size($0.bytes))" }
    }
}
