import ArgumentParser
import HSMControl

/// `passhsm pin`: forbids releasing.
struct PinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Keep files from being released.",
        discussion: "Missing content is not fetched: see `passhsm recall`.")

    @OptionGroup var arguments: FileArguments

    func run() throws {
        let targets = try FileTargets(arguments)
        try targets.run(.pin) { "\(TextTable.count($0.files, "file")) pinned" }
    }
}
