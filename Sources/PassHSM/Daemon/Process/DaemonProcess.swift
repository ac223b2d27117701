import CLinux
import Glibc
import HSMControl
import HSMSystem
import Logging

/// The setup of a daemon's process: its limits, its signals and its log.
package enum DaemonProcess {
    /// Serves a mount in this process until it is unmounted, no matter how. To be called once, before there are other
    /// threads.
    ///
    /// - Parameters:
    ///   - handler: makes the handler of the log's lines for a logger's label.
    ///   - ready: called when the mount can be used, with a line for the user.
    /// - Throws: the reason why the mount cannot be used.
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
        // Before the first thread: every thread inherits the blocked signals, and only the waiting thread gets them.
        let signals = TerminationSignals()
        // The allocator keeps memory in each arena under load. Its default is eight arenas a core.
        passhsm_limit_arenas(16)
        // Each file that the kernel does not read by itself takes a descriptor, and the usual limit is 1,024.
        Capabilities.raiseDescriptorLimit()
        Capabilities.raiseFileSizeLimit()
        Capabilities.reduce()
        let builder = try FrontEndChoice.builder(configuration, log: log)
        let daemon = try Daemon(configuration, frontEnd: builder, failures: failures, log: log)
        // A daemon that was started on a terminal ends with it.
        let endsWithTerminal = configuration.log == nil && isatty(STDERR_FILENO) == 1
        try signals.onArrival(end: daemon.stop) {
            if endsWithTerminal { return daemon.stop() }
            reload(daemon, log)
        }
        log.info("\(daemon.announcement)")
        ready(daemon.announcement)
        daemon.run()
    }

    /// Does the work of SIGHUP: opens the log again by its name, and makes the remote look for credentials before their
    /// next use.
    private static func reload(_ daemon: Daemon, _ log: Logger) {
        daemon.lookAnew()
        guard let path = daemon.configuration.log else { return log.info("SIGHUP: credentials are read again") }
        do throws(Errno) {
            let file = try DaemonLog.open(path)
            for number in [STDOUT_FILENO, STDERR_FILENO] { _ = try check { dup2(file.raw, number) } }
            log.info("SIGHUP: the log was opened again, and credentials are read again")
        } catch {
            log.error("the log \(path) cannot be opened again: \(error.text)")
        }
    }
}
