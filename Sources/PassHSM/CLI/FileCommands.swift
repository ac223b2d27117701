import ArgumentParser
import HSMControl
import HSMSystem

/// What the commands that work on files have in common.
struct FileArguments: ParsableArguments {
    @Argument(help: "Paths in a mount or in a lower directory. Symbolic links are not followed.")
    var paths: [PathArgument]

    @Flag(name: [.short, .long], help: "Also the files below directories.")
    var recursive = false

    @Flag(help: "Show no progress and no summary.")
    var quiet = false
}

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
