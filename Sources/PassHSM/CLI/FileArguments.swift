import ArgumentParser

/// The arguments that all commands on files have in common.
struct FileArguments: ParsableArguments {
    @Argument(help: "Paths in a mount or in a lower directory. Symbolic links are not followed.")
    var paths: [PathArgument]

    @Flag(name: [.short, .long], help: "Work on all files below directories.")
    var recursive = false

    @Flag(help: "Show no progress and no summary.")
    var quiet = false
}
