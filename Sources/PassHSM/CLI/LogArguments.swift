import ArgumentParser
import HSMDaemon
import Logging

/// The options for the amount of logging of a command.
struct LogArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Log lines of this level and above: error, warning, info or debug (default: info).", valueName: "level"),
        completion: .list(LogLevel.choices), transform: LogLevel.init(parsing:))
    var logLevel: LogLevel?

    /// A log on stderr.
    func logger(_ label: String = "passhsm") -> Logger {
        var log = Logger(label: label, factory: Output.log)
        if let logLevel { log.logLevel = logLevel.level }
        return log
    }
}
