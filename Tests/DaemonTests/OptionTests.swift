import HSMCore
import HSMDaemon
import HSMFuse
import HSMSystem
import Testing

/// Each option has one text and one parser.
@Suite struct OptionTests {
    /// What the parser says of `text`, or nil when it takes it.
    private func refusal<Value: OptionValue>(_ type: Value.Type, _ text: String) -> String? {
        do throws(OptionError) {
            _ = try Value(parsing: text)
            return nil
        } catch { return error.description }
    }

    private func roundTrips<Value: OptionValue>(_ values: [Value]) throws {
        for value in values { #expect(try Value(parsing: value.text) == value) }
    }

    @Test("An option with named values takes those, and names them when it is given another")
    func named() throws {
        try roundTrips(FillPolicy.allCases)
        try roundTrips(FuseMount.Cache.allCases)
        try roundTrips(FuseMount.OnChange.allCases)
        try roundTrips(VerifyPolicy.allCases)
        try roundTrips(RemoteHealth.Offline.allCases)
        try roundTrips(FrontEndOption.allCases)
        try roundTrips(LogLevel.allCases)
        #expect(refusal(FillPolicy.self, "never") == "choose one of auto, open, read")
        #expect(refusal(FuseMount.Cache.self, "") != nil)
        #expect(refusal(FuseMount.OnChange.self, "Error") != nil)
        #expect(refusal(VerifyPolicy.self, "strict ") != nil)
        #expect(refusal(RemoteHealth.Offline.self, "maybe") == "choose one of block, error")
        #expect(refusal(FrontEndOption.self, "nfs") == "choose one of fuse, fanotify, auto")
        #expect(refusal(LogLevel.self, "trace") == "choose one of error, warning, info, debug")
    }

    @Test("A switch is yes or no, and nothing else is taken for either")
    func switches() throws {
        try roundTrips([true, false])
        for text in ["", "true", "1", "on", "YES", "maybe"] { #expect(refusal(Bool.self, text) != nil, "\(text)") }
    }

    @Test("Seconds are within their range")
    func seconds() throws {
        try roundTrips([FillDeadline(checked: 1), FillDeadline(checked: 86_400)])
        try roundTrips([TakeoverTime(checked: 0), TakeoverTime(checked: 86_400)])
        for text in ["", "0", "-1", "86401", "1.5", "7s", "99999999999999999999"] {
            #expect(refusal(FillDeadline.self, text)?.contains("from 1 to 86400") == true, "\(text)")
        }
        #expect(refusal(TakeoverTime.self, "-1")?.contains("from 0 to 86400") == true)
    }

    @Test("What is set is recorded, and reads back the same")
    func recording() throws {
        #expect(MountSettings().recorded == [:])
        let all = [
            "fill": "open", "cache": "none", "on-change": "refetch", "verify": "strict", "offline": "error",
            "deadline": "7", "passthrough": "no", "trust-remote-rights": "yes",
        ]
        let settings = try MountSettings(recorded: all)
        #expect(settings.recorded == all)
        #expect(settings.fill == .open && settings.cache == .none && settings.onChange == .refetch)
        #expect(settings.verify == .strict && settings.offline == .error && settings.deadline.seconds == 7)
        #expect(!settings.passthrough && settings.trustRemoteRights)
    }

    @Test("What a mount sets wins over what is recorded, and the rest is as documented")
    func precedence() throws {
        var own = MountSettings()
        own.$fill = .read
        let settings = own.over(try MountSettings(recorded: ["fill": "open", "offline": "error"]))
        #expect(settings.recorded == ["fill": "read", "offline": "error"])
        #expect(settings.fill == .read && settings.offline == .error)
        #expect(settings.verify == .complete && settings.onChange == .error && settings.passthrough)
        #expect(settings.deadline.seconds == 60 && !settings.trustRemoteRights)
    }

    @Test(
        "A recorded setting that is not known is an error",
        arguments: [
            ("fill", "sometimes"), ("cache", ""), ("on-change", "later"), ("verify", "no"), ("offline", "maybe"),
            ("deadline", "0"), ("passthrough", "maybe"), ("trust-remote-rights", "perhaps"), ("later", "yes"),
        ])
    func unknown(name: String, value: String) {
        let error = #expect(throws: OptionError.self) { try MountSettings(recorded: [name: value]) }
        #expect(error?.description.hasPrefix("\(name)=\(value): ") == true)
    }

    @Test("The cache is exclusive where the mount covers the lower directory, unless it is set")
    func cache() throws {
        let covering = DaemonConfiguration(lower: BytePath("/a"), mountpoint: BytePath("/a"))
        let beside = DaemonConfiguration(lower: BytePath("/a"), mountpoint: BytePath("/b"))
        #expect(covering.cache(MountSettings()) == .exclusive)
        #expect(beside.cache(MountSettings()) == .shared)
        let settings = try MountSettings(recorded: ["cache": "shared"])
        #expect(covering.cache(settings) == .shared)
    }

    @Test("A setting that only FUSE can have decides auto, and contradicts fanotify")
    func frontEnd() throws {
        for recorded in [["cache": "shared"], ["on-change": "refetch"], ["passthrough": "no"]] {
            let settings = try MountSettings(recorded: recorded)
            #expect(try DaemonConfiguration.frontEnd(.auto, with: settings) == .fuse)
            #expect(throws: OptionError.self) { try DaemonConfiguration.frontEnd(.fanotify, with: settings) }
        }
        let others = try MountSettings(recorded: ["on-change": "error", "passthrough": "yes", "fill": "read"])
        #expect(try DaemonConfiguration.frontEnd(.auto, with: others) == .auto)
        #expect(try DaemonConfiguration.frontEnd(.fanotify, with: others) == .fanotify)
    }
}
