import Glibc
import HSMControl
import HSMSystem
import TestSupport

/// A registry in a new folder, removed with the value.
final class TemporaryRegistry {
    private let temporary: TemporaryDirectory
    let path: BytePath
    let directory: RuntimeDirectory

    init() throws {
        temporary = try TemporaryDirectory()
        path = BytePath(temporary.path)
        directory = RuntimeDirectory(path: path)
    }

    deinit { temporary.remove() }

    /// Writes a daemon's folder as another process would have.
    func write(_ info: DaemonInfo, content: [UInt8]? = nil) throws {
        let folder = path.appending("\(info.pid)")
        _ = try folder.withCString { name throws(Errno) in try check { mkdir(name, 0o700) } }
        let descriptor = try folder.withCString { name throws(Errno) in try Descriptor.open(name, O_RDONLY) }
        try SmallFile.replace("info.json", in: descriptor, with: try content ?? ControlJSON.encode(info))
    }
}

extension DaemonInfo {
    /// This process under other paths.
    static func own(_ mountpoint: String, lower: String = "/lower") -> DaemonInfo {
        DaemonInfo(mountpoint: BytePath(mountpoint), lower: BytePath(lower), frontEnd: .fuse)
    }

    /// A process that is not there.
    static func gone(_ mountpoint: String) throws -> DaemonInfo {
        let child = try ChildProcess(
            program: BytePath("/bin/true"), arguments: [BytePath("true")], descriptors: .init())
        _ = try child.wait()
        return DaemonInfo(
            pid: child.id, startTime: 1, mountpoint: BytePath(mountpoint), lower: BytePath("/gone"), frontEnd: .fuse)
    }
}

extension ControlHandlers {
    /// Of a daemon that works on no files.
    static func example(
        status: @escaping @Sendable () -> StatusReport = { .example() }, drain: @escaping @Sendable () -> Void = {},
        stop: @escaping @Sendable (_ force: Bool) -> Void = { _ in }
    ) -> ControlHandlers {
        ControlHandlers(
            status: status, drain: drain, stop: stop,
            files: { request, answer in _ = answer(ControlReply(error: "\(request.action): there are no files")) },
            state: { _ throws(Errno) in throw Errno(rawValue: 2) })
    }
}

extension StatusReport {
    static func example() -> StatusReport {
        var report = StatusReport(
            frontEnd: .fuse, mountpoint: BytePath([0x2F, 0xFF]), lower: BytePath("/lower"), source: "dir:/tier",
            cache: "shared")
        report.passthrough = Passthrough(enabled: true, reason: "kernel 6.18, CAP_SYS_ADMIN")
        report.counters = NamedCounts([("hits", 3), ("joins", 0), ("misses", 2)])
        report.requests = NamedCounts([("LOOKUP", 7)])
        report.errors = [Failure(path: BytePath("a"), cause: "gone", time: 5), Failure(cause: "x", time: 6)]
        return report
    }
}
