import ArgumentParser
import Glibc
import HSMControl
import HSMFanotify
import HSMSystem
import Logging

/// `passhsm guard`: the process that holds what must outlive a daemon of the fanotify front end. Started by the daemon.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "guard", shouldDisplay: false)

    @Argument(help: "The name of the socket in the registry.")
    var name: String

    func run() throws {
        let log = Logger(label: "passhsm-guard", factory: Output.log)
        _ = chdir("/")
        let address = GuardianAddress(folder: try RuntimeDirectory.standard().folder(), name: name)
        try Guardian(address, log: log).run()
    }

    /// Starts one in the background; it logs to where this process does.
    static func start(_ name: String) throws {
        let null = try Descriptor.open("/dev/null", O_RDWR)
        let errors = try Descriptor.open("/proc/self/fd/2", O_WRONLY | O_APPEND)
        let child = try ChildProcess(
            program: DaemonLauncher.program, arguments: [BytePath("passhsm"), BytePath("guard"), BytePath(name)],
            descriptors: .init(input: null, output: null, errors: errors), newSession: true)
        // So that nothing of it is left when it ends; without a thread for it, until this process ends.
        try? startThread(name: "guard-end") { _ = try? child.wait() }
    }
}
