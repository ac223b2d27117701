import ArgumentParser
import HSMControl
import HSMStore
import HSMSystem

/// `passhsm adopt`: makes a lower directory that was copied, moved or restored usable again.
struct AdoptCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adopt",
        abstract: "Take over a lower directory that was copied, moved to another disk, or restored from a backup.",
        discussion: """
            Local changes are always kept. Complete files are kept if their checksum, or their size, time and blocks, \
            are right; parts of files if their checksums are. All other content is fetched again when a program reads \
            it. The directory must not be mounted. If the command is interrupted, run it again.

            The exit status is 1 when a file was left as it is, because it may hold the only copy of its content.
            """)

    @Argument(help: "The lower directory.")
    var lower: PathArgument

    @Flag(help: "Fetch files again that were changed without a mount or not copied whole, instead of leaving them.")
    var refetchChanged = false

    @Flag(help: "Show no progress and no summary.")
    var quiet = false

    @OptionGroup var logging: LogArguments

    func run() throws {
        let log = logging.logger()
        let store = try Store.openForAdoption(lower.path.cString, log: log)
        let display = quiet ? nil : TreeDisplay(lower.path)
        defer { display?.finish() }
        let counts: AdoptCounts
        do {
            counts = try Adopter(store, refetchesChanged: refetchChanged) { path, cause in
                display?.clear()
                PassHSMCommand.printError("\(BytePath(path)): left as it is: \(cause)")
            } progress: { counts in
                display?.show(counts.names, "\(counts.complete) complete, \(counts.dirty) dirty, \(counts.left) left")
            }.run()
        } catch {
            throw CommandError("\(lower.path): \(error.text); run `passhsm adopt` again to continue")
        }
        display?.finish()
        if !quiet { Output.lines(lines(counts)) }
        if counts.left > 0 { throw ExitCode.failure }
    }

    private func lines(_ counts: AdoptCounts) -> [String] {
        [
            "\(lower.path): \(counts.complete) complete, \(counts.dirty) with local changes, "
                + "\(counts.partial) partial, "
                + "\(counts.offline) offline (\(counts.givenUp) had content that was not proven), "
                + "\(counts.left) left as they are; \(counts.own) needed nothing"
        ]
    }
}
