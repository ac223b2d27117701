import ArgumentParser
import HSMControl
import HSMDaemon
import HSMSystem

/// `passhsm unmount`: takes a mount away, and returns when its daemon has ended.
struct UnmountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unmount", abstract: "Unmount, and wait until the daemon has ended.")

    @Argument(help: "The mount point.")
    var mountpoint: PathArgument

    @Flag(help: "Unmount even if files are open. Reads that wait for the remote fail.")
    var force = false

    func run() throws {
        let registry = RuntimeDirectory.standard()
        if let daemon = try registry.daemon(forMountpoint: mountpoint.path) {
            let unmounter = Unmounter(daemon, in: registry)
            try force ? unmounter.force() : unmounter.unmount()
        } else {
            try Unmounter.unmountAbandoned(try registry.canonical(mountpoint.path))
        }
    }
}
