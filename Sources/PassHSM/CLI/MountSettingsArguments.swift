import ArgumentParser
import HSMCore
import HSMDaemon
import HSMFuse

/// The mount settings on the command line: those of a mount, or those that an import records for later mounts.
struct MountSettingsArguments: ParsableArguments {
    @Option(
        help: "When incomplete files are filled: auto, open or read.", completion: .list(FillPolicy.choices),
        transform: FillPolicy.init(parsing:))
    var fill: FillPolicy?

    @Option(
        help: "What the kernel may cache of names and attributes: shared, exclusive or none.",
        completion: .list(FuseMount.Cache.choices), transform: FuseMount.Cache.init(parsing:))
    var cache: FuseMount.Cache?

    @Option(
        help: "What becomes of files whose remote copy has changed: error or refetch.",
        completion: .list(FuseMount.OnChange.choices), transform: FuseMount.OnChange.init(parsing:))
    var onChange: FuseMount.OnChange?

    @Option(
        help: "When content is compared with the remote's digest: complete or strict (before any of it is seen).",
        completion: .list(VerifyPolicy.choices), transform: VerifyPolicy.init(parsing:))
    var verify: VerifyPolicy?

    @Option(
        help: "What becomes of reads while the remote is down: block (until it is back, or --deadline) or error.",
        completion: .list(RemoteHealth.Offline.choices), transform: RemoteHealth.Offline.init(parsing:))
    var offline: RemoteHealth.Offline?

    @Option(
        help: ArgumentHelp("How long reads and opens wait for anything to come (60).", valueName: "seconds"),
        transform: FillDeadline.init(parsing:))
    var deadline: FillDeadline?

    @Flag(inversion: .prefixedNo, help: "Let the kernel read complete files by itself, without the daemon.")
    var passthrough: Bool?

    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            """
            Believe a web server or bucket about set-user-ID, set-group-ID, root as the owner, and devices, which let it \
            make anybody root. Otherwise an import leaves them out, and the mount is nosuid and nodev.
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
