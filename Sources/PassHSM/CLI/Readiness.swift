import Glibc
import HSMSystem
import Synchronization

/// Tells the process that started the daemon that the mount can be used, or why it cannot. Only the first message
/// counts. Safe on every thread.
final class Readiness: Sendable {
    /// The environment variable with the number of the descriptor to write to.
    static let variable = "PASSHSM_READY_FD"
    /// The first line of a message; the text after it is for the user.
    static let ok = "ok\n"
    static let error = "error\n"

    private enum Channel {
        /// The launcher reads the other end of the pipe.
        case pipe(Descriptor)
        /// The user reads stdout.
        case terminal
        case done
    }

    private let channel: Mutex<Channel>
    /// Whether this process was started by ``DaemonLauncher``.
    let isDaemon: Bool

    private init(_ pipe: Descriptor?) {
        isDaemon = pipe != nil
        channel = Mutex(pipe.map(Channel.pipe) ?? .terminal)
    }

    /// Reads the environment that this process was started in. To be called once, before there are other threads.
    static func inherited() throws(Errno) -> Readiness {
        guard let text = getenv(variable), let number = Int32(String(cString: text)) else { return Readiness(nil) }
        unsetenv(variable)
        _ = try check { fcntl(number, F_SETFD, FD_CLOEXEC) }
        return Readiness(Descriptor(owning: number))
    }

    /// The mount can be used; `message` is printed by the command that was typed.
    func ready(_ message: String) { send(Self.ok, message) }

    /// The mount cannot be used; `text` is one line. Without a launcher the thrown error reports it.
    func failed(_ text: String) { send(Self.error, text) }

    private func send(_ kind: String, _ text: String) {
        let last = channel.withLock { channel in
            defer { channel = .done }
            return channel
        }
        switch last {
        case .pipe(let pipe):
            // An interrupted launcher no longer reads: SIGPIPE must not end the mount.
            let old = signal(SIGPIPE, SIG_IGN)
            let bytes = Array((kind + text).utf8)
            _ = bytes.withUnsafeBytes { write(pipe.raw, $0.baseAddress, $0.count) }
            signal(SIGPIPE, old)
        case .terminal where kind == Self.ok:
            Output.lines([text])
            fflush(nil)
        case .terminal, .done: break
        }
    }
}
