import ArgumentParser
import HSMDaemon
import Logging

/// The options for the amount of logging of a command.
struct LogArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The least severe lines that are logged: error, warning, info or debug (info).", valueName: "level"),
        completion: .list(LogLevel.choices), transform: LogLevel.init(parsing:))
    var logLevel: LogLevel?

    /// A log on stderr.
    func logger(_ label: String = "passhsm") -> Logger {
        var log = Logger(label: label, factory: Output.log)
        if let logLevel { log.logLevel = logLevel.level }
        return log
    }
}
