import ArgumentParser
import HSMControl

/// `passhsm unpin`: allows releasing again.
struct UnpinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unpin", abstract: "Allow files to be released again.")

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.unpin) { "\(TextTable.count($0.files, "file")) unpinned" }
    }
}
