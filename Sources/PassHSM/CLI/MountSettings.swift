import ArgumentParser
import HSMImport

/// How a lower directory is mounted: what the command line says, or else what an import has recorded.
struct MountSettings: ParsableArguments {
    @Option(help: "When incomplete files are filled: auto, open or read.")
    var fill: MountOptions.Fill?

    @Option(help: "What the kernel may cache of names and attributes: shared, exclusive or none.")
    var cache: MountOptions.Cache?

    @Option(help: "What becomes of files whose remote copy has changed: error or refetch.")
    var onChange: MountOptions.OnChange?

    @Option(help: "When content is compared with the remote's digest: complete or strict (before any of it is seen).")
    var verify: MountOptions.Verify?

    @Option(help: "What becomes of reads while the remote is down: block (until it is back, or --deadline) or error.")
    var offline: MountOptions.Offline?

    @Option(help: ArgumentHelp("How long reads and opens wait for anything to come.", valueName: "seconds"))
    var deadline: Int?

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

    func validate() throws {
        guard (1...86_400).contains(deadline ?? 1) else {
            throw ValidationError("--deadline is a number of seconds from 1 to 86400")
        }
    }

    /// The option that is given and that only FUSE can have.
    var fuseOption: String? {
        if cache != nil { return "--cache" }
        if onChange == .refetch { return "--on-change refetch" }
        return passthrough == false ? "--no-passthrough" : nil
    }

    /// What was given, as it is recorded: the options' names and values.
    var recorded: [String: String] {
        let all: [(String, String?)] = [
            ("fill", fill?.rawValue), ("cache", cache?.rawValue), ("on-change", onChange?.rawValue),
            ("verify", verify?.rawValue), ("offline", offline?.rawValue), ("deadline", deadline.map { "\($0)" }),
            ("passthrough", passthrough.map { $0 ? "yes" : "no" }),
            (RemoteRights.trustSetting, trustRemoteRights.map { $0 ? "yes" : "no" }),
        ]
        return Dictionary(uniqueKeysWithValues: all.compactMap { name, value in value.map { (name, $0) } })
    }

    /// The settings, and what was recorded where they say nothing.
    ///
    /// - Throws: `CommandError` for what was recorded and is no setting: it could have been the one that matters.
    func over(_ recorded: [String: String]) throws -> MountSettings {
        var result = self
        for (name, value) in recorded.sorted(by: { $0.key < $1.key }) {
            func take<Value: ExpressibleByArgument>(_ field: WritableKeyPath<MountSettings, Value?>) throws {
                guard let value = Value(argument: value) else {
                    throw CommandError("the configuration says \(name)=\(value), which is not known")
                }
                if result[keyPath: field] == nil { result[keyPath: field] = value }
            }
            switch name {
            case "fill": try take(\.fill)
            case "cache": try take(\.cache)
            case "on-change": try take(\.onChange)
            case "verify": try take(\.verify)
            case "offline": try take(\.offline)
            case "deadline": try take(\.deadline)
            case RemoteRights.trustSetting:
                if result.trustRemoteRights == nil { result.trustRemoteRights = value == "yes" }
            case "passthrough": if result.passthrough == nil { result.passthrough = value != "no" }
            default: throw CommandError("the configuration says \(name)=\(value), which is not known")
            }
        }
        do { try result.validate() } catch { throw CommandError("the configuration: \(error)") }
        return result
    }
}
