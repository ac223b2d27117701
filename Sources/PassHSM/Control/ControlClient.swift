import Glibc
import HSMSystem

/// Sends requests to one daemon over its control socket. Each request has a connection of its own.
package struct ControlClient: Sendable {
    package let daemon: DaemonInfo
    private let directory: RuntimeDirectory
    /// The largest reply.
    private static let replyBytes = 64 << 20

    package init(_ daemon: DaemonInfo, in directory: RuntimeDirectory) {
        self.daemon = daemon
        self.directory = directory
    }

    /// Sends `request`, and waits for the reply for `seconds` at most.
    package func request(_ request: ControlRequest, seconds: Double = 5) throws(ControlError) -> ControlReply {
        let deadline = Deadline(seconds: seconds)
        let line = try explaining(seconds) { () throws(Errno) in
            try send(request, until: deadline).readLine(limit: Self.replyBytes, until: deadline)
        }
        return try decode(line)
    }

    /// Requests work on files, and hands on the daemon's reports until the work is done. No report for `seconds` is an
    /// error.
    package func work(
        _ request: FileRequest, seconds: Double = 60, _ report: (WorkReport) -> Void
    ) throws(ControlError) {
        let socket = try explaining(seconds) { () throws(Errno) in
            try send(.files(request), until: Deadline(seconds: seconds))
        }
        while true {
            let line = try explaining(seconds) { () throws(Errno) in
                try socket.readLine(limit: Self.replyBytes, until: Deadline(seconds: seconds))
            }
            guard let work = try decode(line).work else {
                throw ControlError(.noAnswer, "the daemon (process \(daemon.pid)) sent no report on the files")
            }
            report(work)
            if work.isDone { return }
        }
    }

    private func send(_ request: ControlRequest, until deadline: Deadline) throws(Errno) -> LocalSocket {
        let folder = try directory.folder(of: daemon)
        let socket = try LocalSocket.connect(RuntimeDirectory.socketName, in: folder, until: deadline)
        guard let text = try? ControlJSON.encode(request) else { throw Errno(rawValue: EINVAL) }
        do throws(Errno) { try socket.write(text + [UInt8(ascii: "\n")], until: deadline) } catch {
            // A daemon that refuses the connection has closed it, and has sent the reason before.
            if error.rawValue != EPIPE { throw error }
        }
        return socket
    }

    private func decode(_ line: [UInt8]) throws(ControlError) -> ControlReply {
        guard let reply = try? ControlJSON.decode(ControlReply.self, from: line) else {
            throw ControlError(
                .noAnswer, "the daemon (process \(daemon.pid)) sent a line that is no reply")
        }
        if let error = reply.error { throw ControlError(.refused, "the daemon (process \(daemon.pid)): \(error)") }
        return reply
    }

    private func explaining<Result>(
        _ seconds: Double, _ body: () throws(Errno) -> Result
    ) throws(ControlError) -> Result {
        do throws(Errno) { return try body() } catch { throw explain(error, seconds: seconds) }
    }

    private func explain(_ error: Errno, seconds: Double) -> ControlError {
        let name = "the daemon of \(daemon.mountpoint) (process \(daemon.pid))"
        if !daemon.isAlive { return ControlError(.noDaemon, "\(name) has ended") }
        return switch error.rawValue {
        case ETIMEDOUT: ControlError(.noAnswer, "\(name) does not answer within \(Int(seconds.rounded(.up))) s")
        case ECONNREFUSED, ENOENT: ControlError(.noAnswer, "\(name) does not listen on its control socket")
        case ECONNRESET, EPIPE: ControlError(.noAnswer, "\(name) broke the connection")
        default: ControlError(.noAnswer, "cannot ask \(name): \(error.text)")
        }
    }
}
