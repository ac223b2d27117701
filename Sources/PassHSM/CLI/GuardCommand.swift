import ArgumentParser
import HSMDaemon
import Logging

/// `passhsm guard`: the process that holds what must outlive a daemon of the fanotify front end. Started by the daemon.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: GuardianProcess.command, shouldDisplay: false)

    @Argument(help: "The name of the socket in the registry.")
    var name: String

    func run() throws {
        let log = Logger(label: "passhsm-guard", factory: Output.log)
        try GuardianProcess.run(name, log: log)
    }
}
