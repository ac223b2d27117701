import CLinux
import Glibc
import HSMControl
import HSMSystem
import Logging

/// A process that is a daemon: its limits, its signals and its log.
package enum DaemonProcess {
    /// Serves a mount in this process until it is unmounted, by whomever. To be called once, before there are other threads.
    ///
    /// - Parameters:
    ///   - handler: where lines are logged to, by the logger's label.
    ///   - ready: told when the mount can be used, with a line for the user.
    /// - Throws: why it cannot be used.
    package static func serve(
        _ configuration: DaemonConfiguration, log handler: @escaping @Sendable (String) -> any LogHandler,
        ready: (String) -> Void
    ) throws {
        let failures = RecentFailures()
        let limit = LogLimit()
        let log = Logger(label: "passhsm") { label in
            var lines = handler(label)
            lines.logLevel = configuration.logLevel.level
            return LimitedLogHandler(MultiplexLogHandler([lines, failures.handler()]), limit)
        }
        // Before the first thread: all inherit it, and only the waiting thread gets the signals.
        let signals = TerminationSignals()
        // What the allocator keeps under load grows with the arenas, which are eight a core otherwise.
        passhsm_limit_arenas(16)
        // Files that the kernel does not read by itself take a descriptor each, and the usual limit is 1,024.
        Capabilities.raiseDescriptorLimit()
        Capabilities.raiseFileSizeLimit()
        Capabilities.reduce()
        let builder = try FrontEndChoice.builder(configuration, log: log)
        let daemon = try Daemon(configuration, frontEnd: builder, failures: failures, log: log)
        // The end of the terminal is the end of what was started on it.
        let endsWithTerminal = configuration.log == nil && isatty(STDERR_FILENO) == 1
        try signals.onArrival(end: daemon.stop) {
            if endsWithTerminal { return daemon.stop() }
            reload(daemon, log)
        }
        log.info("\(daemon.announcement)")
        ready(daemon.announcement)
        daemon.run()
    }

    /// What SIGHUP asks for: the log is opened again by its name, and credentials are looked for before they are next used.
    private static func reload(_ daemon: Daemon, _ log: Logger) {
        daemon.lookAnew()
        guard let path = daemon.configuration.log else { return log.info("credentials are looked for anew") }
        do throws(Errno) {
            let file = try DaemonLog.open(path)
            for number in [STDOUT_FILENO, STDERR_FILENO] { _ = try check { dup2(file.raw, number) } }
            log.info("the log was opened again, and credentials are looked for anew")
        } catch {
            log.error("the log \(path) cannot be opened again: \(error.text)")
        }
    }
}
