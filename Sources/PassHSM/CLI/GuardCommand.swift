import ArgumentParser
import HSMDaemon

/// `passhsm guard`: holds the parts that must outlive a daemon of the fanotify front end. The daemon starts it.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: GuardianProcess.command, shouldDisplay: false)

    @Argument(help: "The name of the socket in the registry.")
    var name: String

    @OptionGroup var logging: LogArguments

    func run() throws {
        try GuardianProcess.run(name, log: logging.logger("passhsm-guard"))
    }
}
