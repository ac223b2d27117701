import ArgumentParser

/// `passhsm unpin`: allows releasing again.
struct UnpinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unpin", abstract: "Allow that files are released.")

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.unpin) { "\($0.files) files unpinned" }
    }
}
