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
            Each file keeps what can be proven of it: local changes always, complete files by checksum, or size, time and \
            blocks, parts of files by their checksums. The rest is fetched again when it is next read. Nothing may be \
            mounted. Broken off, it is run again.

            The exit status is 1 when a file was left as it is, because only it may have what is in it.
            """)

    @Argument(help: "The lower directory.")
    var lower: PathArgument

    @Flag(help: "Fetch files again that were changed beside a mount or not copied whole, and do not leave them.")
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
            throw CommandError("\(lower.path): \(error.text); run again, it goes on")
        }
        display?.finish()
        if !quiet { Output.lines(lines(counts)) }
        if counts.left > 0 { throw ExitCode.failure }
    }

    private func lines(_ counts: AdoptCounts) -> [String] {
        [
            "\(lower.path): \(counts.complete) complete, \(counts.dirty) with local changes, \(counts.partial) in part, "
                + "\(counts.offline) offline (\(counts.givenUp) had content that was not proven), \(counts.left) left; "
                + "\(counts.own) were their own already"
        ]
    }
}
