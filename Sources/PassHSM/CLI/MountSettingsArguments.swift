import ArgumentParser
import HSMCore
import HSMDaemon
import HSMFuse

/// The mount settings on the command line: those of a mount, or those that an import records for later mounts.
struct MountSettingsArguments: ParsableArguments {
    @Option(
        help: "When to fill incomplete files: auto, open or read (default: auto).",
        completion: .list(FillPolicy.choices),
        transform: FillPolicy.init(parsing:))
    var fill: FillPolicy?

    @Option(
        help: """
            How long the kernel may cache names and attributes: shared, exclusive or none. The default is exclusive \
            where the mount covers the lower directory, else shared.
            """,
        completion: .list(FuseMount.Cache.choices), transform: FuseMount.Cache.init(parsing:))
    var cache: FuseMount.Cache?

    @Option(
        help: "How to treat a file whose remote copy has changed: error or refetch (default: error).",
        completion: .list(FuseMount.OnChange.choices), transform: FuseMount.OnChange.init(parsing:))
    var onChange: FuseMount.OnChange?

    @Option(
        help: """
            When to compare content with the remote's digest: complete, or strict, which is before programs see any of \
            it (default: complete).
            """,
        completion: .list(VerifyPolicy.choices), transform: VerifyPolicy.init(parsing:))
    var verify: VerifyPolicy?

    @Option(
        help: """
            How reads behave while the remote is down: block, which is until it is back or --deadline is over, or \
            error (default: block).
            """,
        completion: .list(RemoteHealth.Offline.choices), transform: RemoteHealth.Offline.init(parsing:))
    var offline: RemoteHealth.Offline?

    @Option(
        help: ArgumentHelp(
            "How long reads and opens wait while no content arrives (default: 60).", valueName: "seconds"),
        transform: FillDeadline.init(parsing:))
    var deadline: FillDeadline?

    @Flag(inversion: .prefixedNo, help: "Let the kernel read and write complete files without the daemon.")
    var passthrough: Bool?

    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            """
            Take set-user-ID, set-group-ID, root as the owner, and devices from a web server or bucket. Its operator \
            can then become root here. Without this, an import leaves them out, and the mount is nosuid and nodev.
            """))
    var trustRemoteRights: Bool?

    /// The settings that were given.
    var settings: MountSettings {
        var settings = MountSettings()
        settings.$fill = fill
        settings.$cache = cache
        settings.$onChange = onChange
        settings.$verify = verify
        settings.$offline = offline
        settings.$deadline = deadline
        settings.$passthrough = passthrough
        settings.$trustRemoteRights = trustRemoteRights
        return settings
    }
}
