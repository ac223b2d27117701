import HSMCore
import HSMFuse
import HSMImport

/// The options of a mount. An import may record them for later mounts, and a mount may set them for itself.
package struct MountSettings: Equatable, Sendable {
    /// When incomplete files are filled.
    @Setting package var fill = FillPolicy.auto
    /// How far the kernel may cache names and attributes (FUSE). While it is not set, see
    /// ``DaemonConfiguration/cache(_:)``.
    @Setting package var cache = FuseMount.Cache.shared
    /// The treatment of files with a changed remote copy; `refetch` is for FUSE only.
    @Setting package var onChange = FuseMount.OnChange.error
    /// When content is compared with the remote's digest.
    @Setting package var verify = VerifyPolicy.complete
    /// The outcome of reads while the remote is down.
    @Setting package var offline = RemoteHealth.Offline.block
    /// The time that reads and opens wait while no data arrives.
    @Setting package var deadline = FillDeadline(checked: 60)
    /// The kernel reads complete files by itself, without the daemon (FUSE).
    @Setting package var passthrough = true
    /// A web server's or bucket's word about set-user-ID, set-group-ID, root as the owner, and devices is believed.
    @Setting package var trustRemoteRights = false

    package init() {}

    /// Reads the settings that a store's configuration has recorded: values by the options' names.
    ///
    /// - Throws: `OptionError` for an unknown name or value: it could be the one that matters.
    package init(recorded: [String: String]) throws(OptionError) {
        for (name, text) in recorded.sorted(by: { $0.key < $1.key }) {
            guard let option = Self.options.first(where: { $0.name == name }) else {
                throw OptionError("\(name)=\(text): this version has no such option")
            }
            do throws(OptionError) { try option.parse(text, &self) } catch {
                throw OptionError("\(name)=\(text): \(error)")
            }
        }
    }

    /// The set options in their recorded form, which ``init(recorded:)`` reads.
    package var recorded: [String: String] {
        var result: [String: String] = [:]
        for option in Self.options { result[option.name] = option.text(self) }
        return result
    }

    /// These settings, and those of `other` where these set nothing.
    package func over(_ other: MountSettings) -> MountSettings {
        var result = self
        for option in Self.options { option.inherit(other, &result) }
        return result
    }

    /// A set option that only FUSE can have, as people write it.
    package var fuseOption: String? {
        if $cache != nil { return "--cache" }
        if onChange == .refetch { return "--on-change refetch" }
        return passthrough ? nil : "--no-passthrough"
    }

    // MARK: The options by name

    /// Every option, by the name that a configuration has for it.
    private static let options = [
        Option("fill", \.$fill), Option("cache", \.$cache), Option("on-change", \.$onChange),
        Option("verify", \.$verify), Option("offline", \.$offline), Option("deadline", \.$deadline),
        Option("passthrough", \.$passthrough), Option(RemoteRights.trustSetting, \.$trustRemoteRights),
    ]

    private struct Option: Sendable {
        let name: String
        let parse: @Sendable (String, inout MountSettings) throws(OptionError) -> Void
        let text: @Sendable (MountSettings) -> String?
        let inherit: @Sendable (MountSettings, inout MountSettings) -> Void

        init<Value: OptionValue>(_ name: String, _ field: any (WritableKeyPath<MountSettings, Value?> & Sendable)) {
            self.name = name
            parse = { text, settings throws(OptionError) in settings[keyPath: field] = try Value(parsing: text) }
            text = { $0[keyPath: field]?.text }
            inherit = { other, settings in
                if settings[keyPath: field] == nil { settings[keyPath: field] = other[keyPath: field] }
            }
        }
    }
}
