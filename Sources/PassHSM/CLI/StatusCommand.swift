import ArgumentParser
import Glibc
import HSMControl
import HSMDaemon
import HSMSystem

/// `passhsm status`: shows a daemon's report about itself.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the state of a mount: its remote, counters and last errors.")

    @Argument(help: "The mount point, or a path in the mount.")
    var mountpoint: PathArgument

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let registry = RuntimeDirectory.standard()
        guard let daemon = try registry.daemon(containing: mountpoint.path) else {
            let canonical = try registry.canonical(mountpoint.path)
            if let mount = try UnregisteredMount.at(canonical) { throw CommandError(mount.explanation) }
            let whose = OwnProcess.isMachineRoot ? "" : " of this user's"
            throw CommandError("no daemon\(whose) serves \(mountpoint.path): mount it with `passhsm mount`")
        }
        let reply = try ControlClient(daemon, in: registry).request(.status)
        guard let status = reply.status else {
            throw CommandError("the daemon (process \(daemon.pid)) sent no status")
        }
        if json { try Output.json(status) } else { Output.lines(Self.text(of: status)) }
    }

    private static func text(of status: StatusReport) -> [String] {
        let passthrough = status.passthrough.enabled ? "on" : "off"
        let reason = status.passthrough.reason.isEmpty ? "" : " (\(status.passthrough.reason))"
        var rows = [
            ["mount point", "\(status.mountpoint)"], ["lower", "\(status.lower)"], ["source", status.source],
            ["remote", text(of: status.remote)], ["front end", status.frontEnd.rawValue],
            ["passthrough", passthrough + reason],
            ["cache", status.cache],
            [
                "options",
                status.options.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " "),
            ],
            ["process", "\(status.pid), version \(status.version)"],
            ["up for", TextTable.duration(seconds: status.uptimeSeconds)],
            ["memory", TextTable.size(status.memoryBytes)], ["waiting", "\(status.waiting)"],
            ["incomplete files", "\(status.incompleteFiles)"], ["known inodes", "\(status.knownInodes)"],
            ["open handles", "\(status.openHandles)"], ["open descriptors", "\(status.openDescriptors)"],
            ["backing ids", "\(status.backingIDs)"],
        ]
        rows += status.warnings.map { ["warning", $0] }
        rows += section("counters", status.counters) + section("requests", status.requests)
        var lines = TextTable.lines(rows)
        if !status.errors.isEmpty {
            lines += ["last errors"]
            lines += TextTable.lines(
                status.errors.map { error in
                    [
                        "  " + LocalTime.text(error.time), error.path.map { "\($0):" } ?? "",
                        ArgumentText.readable(error.cause),
                    ]
                })
        }
        return lines
    }

    private static func text(of remote: StatusReport.Remote) -> String {
        guard let seconds = remote.seconds else { return "answers" }
        let time = TextTable.duration(seconds: seconds)
        return (remote.isDown ? "down" : "no answer") + " for \(time): " + ArgumentText.readable(remote.cause ?? "")
    }

    private static func section(_ name: String, _ counts: NamedCounts) -> [[String]] {
        counts.entries.isEmpty ? [] : [[name]] + counts.entries.map { ["  \($0.name)", "\($0.value)"] }
    }
}

/// Formats points in time for people.
enum LocalTime {
    /// `2026-01-31 23:59:58` in the local time zone.
    static func text(_ seconds: Int) -> String {
        var time = time_t(seconds)
        var parts = tm()
        localtime_r(&time, &parts)
        var buffer = [CChar](repeating: 0, count: 32)
        let count = strftime(&buffer, buffer.count, "%Y-%m-%d %H:%M:%S", &parts)
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
