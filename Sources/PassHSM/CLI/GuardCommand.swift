import ArgumentParser
import HSMDaemon

/// `passhsm guard`: the process that holds what must outlive a daemon of the fanotify front end. Started by the daemon.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: GuardianProcess.command, shouldDisplay: false)

    @Argument(help: "The name of the socket in the registry.")
    var name: String

    @OptionGroup var logging: LogArguments

    func run() throws {
        try GuardianProcess.run(name, log: logging.logger("passhsm-guard"))
    }
}
