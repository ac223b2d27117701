import Glibc
import HSMSystem

@testable import HSMControl

/// A control server in a folder of its own, which is used for one input after the other, and lives as long as the process.
final class FuzzedServer: Sendable {
    /// Made when it is first asked for: it has threads.
    static let shared = Result { try FuzzedServer() }

    private let folder: Descriptor
    private let server: ControlServer

    private init() throws {
        var template = Array("/tmp/passhsm-fuzz-XXXXXX\0".utf8CString)
        guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
        let path = BytePath(cString: template)
        let info = DaemonInfo(mountpoint: BytePath("/mnt"), lower: BytePath("/lower"), frontEnd: .fuse)
        let registration = try RuntimeDirectory(path: path).register(info)
        folder = registration.folder
        let status = StatusReport(
            frontEnd: .fuse, mountpoint: BytePath("/mnt"), lower: BytePath("/lower"), source: "dir:/", cache: "shared")
        server = try ControlServer(
            registration,
            handlers: ControlHandlers(
                status: { status }, drain: {}, stop: { _ in },
                files: { request, answer in
                    var end = WorkReport()
                    end.files = request.paths.count
                    end.isDone = true
                    _ = answer(ControlReply(work: end))
                }, state: { _ throws(Errno) in throw Errno(rawValue: ENOENT) }))
    }

    /// Sends `input` as a client that then ends its side; the lines of the answers. Whatever the input was, a request for the
    /// status is answered afterwards.
    func exchange(_ input: [UInt8]) throws -> [[UInt8]] {
        let deadline = Deadline(seconds: 10)
        let client = try LocalSocket.connect(RuntimeDirectory.socketName, in: folder, until: deadline)
        let lines = input.split(separator: 0x0a, omittingEmptySubsequences: false).count - 1
        try client.write(input, until: deadline)
        shutdown(client.descriptor.raw, Int32(SHUT_WR))
        var answers: [[UInt8]] = []
        while answers.count < lines { answers.append(try client.readLine(limit: 1 << 20, until: deadline)) }
        return answers
    }
}
