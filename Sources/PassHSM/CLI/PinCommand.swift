import ArgumentParser

/// `passhsm pin`: forbids releasing.
struct PinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Forbid that files are released.",
        discussion: "What is missing of them is not fetched: see recall.")

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.pin) { "\($0.files) files pinned" }
    }
}
